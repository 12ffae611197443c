"""The one function that opens whatever a live picture can come from."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sources.arrival import RETRY_SECONDS, ArrivalClock
from videonst.sources.paced import PacedSource
from videonst.sources.source import Source, SourceInfo, is_address, open_source

if TYPE_CHECKING:
    from videonst.sources.network import NetworkSource

_log = logging.getLogger(__name__)


class LiveSource(Source, Protocol):
    """Yields frames as they happen, and can be told from another thread to stop."""

    @property
    def trouble(self) -> str:
        """One line while no frames come, else empty."""
        ...

    def stop(self) -> None:
        """The iteration ends soon."""
        ...


def open_recording(source: str | Path, *, loop: bool = False) -> LiveSource:
    """Opens what stands in for a camera: anything that `videonst.sources.open_source` takes, paced by its own times.

    Args:
        source: a file, a folder of pictures, a network address. A single picture is repeated for ever.
        loop: start again at the end.

    Raises:
        InputError: it cannot be opened.
    """
    if is_address(source):
        from videonst.sources.network import open_address

        stream = open_address(str(source), low_delay=True)
        if stream.info.duration is None:
            return StreamSource(stream, lambda: open_address(str(source), low_delay=True))
        stream.__exit__(None, None, None)
    return PacedSource(lambda: open_source(source), loop=loop)


class StreamSource:
    """A network camera: every frame when it comes, stamped with that time. Where the stream ends it is called again and
    again until it is back; meanwhile nothing is yielded and `trouble` says so.

    Args:
        stream: opened; closed with this.
        reopen: opens it again, or raises `InputError`.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        stream: "NetworkSource",
        reopen: Callable[[], "NetworkSource"],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._reopen, self._clock = stream, reopen, clock
        self._stopping = threading.Event()
        self.info: SourceInfo = stream.info
        self.trouble = ""

    def stop(self) -> None:
        """The iteration ends soon, at the latest with the stream's time-out. From any thread."""
        self._stopping.set()
        self._stream.stop()

    def __iter__(self) -> Iterator[Frame]:
        arrivals = ArrivalClock(self._clock)
        while not self._stopping.is_set():
            for frame in self._stream:
                if self._stopping.is_set():
                    return
                yield arrivals.stamp(frame)
            self._reconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._stream.__exit__(kind, error, trace)

    def _reconnect(self) -> None:
        """Waits until the stream is back, or this is stopped."""
        self._stream.__exit__(None, None, None)
        self.trouble = "the stream ended; waiting for it to come back"
        _log.warning(self.trouble)
        while not self._stopping.wait(RETRY_SECONDS):
            try:
                self._stream = self._reopen()
            except InputError:
                continue
            self.trouble = ""
            _log.warning("the stream is back")
            return


def camera_id(text: str) -> int | str:
    """The camera that `text` names: a number, or a device such as /dev/video2.

    Raises:
        InputError: neither.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    if re.fullmatch(r"/dev/\S+", text):
        return text
    raise InputError(f"cannot read {text!r} as a camera; expected a number, see --list-cameras, or /dev/videoN")
