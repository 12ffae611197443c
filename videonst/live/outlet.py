"""Painted frames on their way out, in a thread of their own: what writes slowly never holds up the picture."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from queue import Full, Queue
from types import TracebackType
from typing import Self

from videonst.frame import Frame
from videonst.sinks import Sink

_log = logging.getLogger(__name__)

WAITING_FRAMES = 8
"""Frames that may wait to be written; a quarter of a second at 30 fps. More are dropped: times stay true."""

FINISH_SECONDS = 30.0
"""How long a sink may take to write what waits and close its file."""


class Outlet:
    """Feeds a sink. The first frame is moved to time 0, and every frame lasts until the next one.

    Args:
        sink: entered, fed and left in the outlet's thread.
        lasting: hold each frame back until the next is there, so that its duration is known; where the sink shows
            frames at once, that would be a delay.
        waiting: frames that may wait.

    Attributes:
        frames: given to the sink.
        drops: frames that found no place.
    """

    def __init__(self, sink: Sink, *, lasting: bool = True, waiting: int = WAITING_FRAMES) -> None:
        self._sink, self._lasting = sink, lasting
        self._queue: Queue[Frame | None] = Queue(waiting)
        self._error: BaseException | None = None
        self.frames = self.drops = 0
        self._thread = threading.Thread(target=self._run, name="videonst-outlet", daemon=True)
        self._thread.start()

    def put(self, frame: Frame) -> None:
        """Never waits.

        Raises:
            VideoNSTError: the sink has failed.
        """
        if self._error:
            raise self._error
        try:
            self._queue.put_nowait(frame)
        except Full:
            self.drops += 1

    def close(self) -> None:
        """Writes what waits and closes the sink.

        Raises:
            VideoNSTError: the sink has failed.
        """
        while self._thread.is_alive():
            try:
                self._queue.put(None, timeout=_POLL_SECONDS)
                break
            except Full:
                pass
        self._thread.join(FINISH_SECONDS)
        if self.drops:
            _log.warning("%d frames were not written: writing was too slow", self.drops)
        if self._error:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            with self._sink:
                _feed(self._take, self._write, self._lasting)
        except BaseException as error:
            self._error = error

    def _take(self) -> Frame | None:
        return self._queue.get()

    def _write(self, frame: Frame) -> None:
        self._sink.write(frame)
        self.frames += 1


_POLL_SECONDS = 0.1


def _feed(take: Callable[[], Frame | None], write: Callable[[Frame], None], lasting: bool) -> None:
    start: int | None = None
    pending: Frame | None = None
    while (frame := take()) is not None:
        start = frame.pts if start is None else start
        frame = replace(frame, pts=frame.pts - start)
        if not lasting:
            write(frame)
            continue
        if pending is not None and frame.pts <= pending.pts:  # a source whose times jump back
            continue
        if pending is not None:
            write(replace(pending, duration=frame.pts - pending.pts))
        pending = replace(frame, duration=frame.duration or (frame.pts - pending.pts if pending else 0))
    if pending is not None:
        write(pending)
