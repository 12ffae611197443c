"""The server's own source: painted once in a thread of its own, shown to all viewers, running while there are any."""

import asyncio
import functools
import itertools
import logging
import threading
from collections.abc import Callable

from videonst.errors import VideoNSTError
from videonst.live.capture import Capture
from videonst.live.latest import Closed
from videonst.web.frames import FramePainter
from videonst.web.protocol import Shown
from videonst.web.sessions import ViewerSession

log = logging.getLogger(__name__)

OpenCapture = Callable[[], Capture]
"""Opens the source anew."""

_POLL_SECONDS = 0.2
"""How soon the thread notices that the last viewer has left."""

_HANDOVER_SECONDS = 10.0
"""How long a camera that was in use a moment ago is waited for."""


class Stage:
    """The source and who looks at it. Used in the event loop.

    Args:
        open_capture: see `OpenCapture`.
        new_painter: makes a painter without a past.

    Attributes:
        viewers: who looks at it.
    """

    def __init__(self, open_capture: OpenCapture, new_painter: Callable[[], FramePainter]) -> None:
        self.viewers: set[ViewerSession] = set()
        self._open_capture = open_capture
        self._new_painter = new_painter
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._stopping.set()

    def join(self, viewer: ViewerSession) -> None:
        """Starts the source where it does not run."""
        self.viewers.add(viewer)
        if self._stopping.is_set():
            self._stopping = threading.Event()
            arguments = (asyncio.get_running_loop(), self._stopping, self._thread)
            self._thread = threading.Thread(target=self._work, args=arguments, name="videonst-stage", daemon=True)
            self._thread.start()

    def leave(self, viewer: ViewerSession) -> None:
        """The last viewer stops it; the thread is not waited for."""
        self.viewers.discard(viewer)
        if not self.viewers:
            self._stopping.set()

    def close(self, timeout: float) -> None:
        """Stops the source and waits up to `timeout` seconds for it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _work(
        self, loop: asyncio.AbstractEventLoop, stopping: threading.Event, before: threading.Thread | None
    ) -> None:
        if before is not None:
            before.join(_HANDOVER_SECONDS)
        try:
            self._paint_all(loop, stopping)
        except Closed:
            error = VideoNSTError("the source has ended")
        except VideoNSTError as failure:
            error = failure
        except Exception:
            log.exception("the source failed")
            error = VideoNSTError("the source failed; the server's log says why")
        else:
            return
        _tell(loop, functools.partial(self._end, error, stopping))

    def _paint_all(self, loop: asyncio.AbstractEventLoop, stopping: threading.Event) -> None:
        painter = self._new_painter()
        trouble = ""
        with self._open_capture() as capture:
            while not stopping.is_set():
                arrival = capture.box.take(_POLL_SECONDS)
                if capture.trouble != trouble:
                    trouble = capture.trouble
                    _tell(loop, functools.partial(self._warn, trouble))
                if arrival is not None:
                    wanted = any(viewer.wants_original for viewer in tuple(self.viewers))
                    shown = painter.paint(next(self._numbers), arrival.item, arrival.time, with_original=wanted)
                    _tell(loop, functools.partial(self._show, shown))

    def _show(self, shown: Shown) -> None:
        for viewer in self.viewers:
            viewer.offer(shown)

    def _warn(self, trouble: str) -> None:
        for viewer in self.viewers:
            viewer.warn(trouble)

    def _end(self, error: VideoNSTError, stopping: threading.Event) -> None:
        stopping.set()
        for viewer in self.viewers:
            viewer.end(error)


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(what)
