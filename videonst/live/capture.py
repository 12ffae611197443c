"""A live source in a thread of its own, whose newest frame waits in a box."""

import threading
from types import TracebackType
from typing import Self

import cv2

from videonst.frame import Frame
from videonst.live.latest import Latest
from videonst.sources.live import LiveSource

LEAVE_SECONDS = 5.0
"""How long a source may take to notice that it is stopped; Video4Linux waits two for a picture."""


class Capture:
    """Fills a box from a source. Entering starts the thread, leaving stops it and closes the source.

    Args:
        source: closed with the capture, by its own thread, so that nobody closes what is being read.
        mirror: left and right exchanged.

    Attributes:
        source: as given.
        box: the newest frame; closed where the source ends, with its error where it fails.
    """

    def __init__(self, source: LiveSource, *, mirror: bool = False) -> None:
        self.source = source
        self.box: Latest[Frame] = Latest()
        self._mirror = mirror
        self._thread = threading.Thread(target=self._run, name="videonst-capture", daemon=True)

    @property
    def trouble(self) -> str:
        """One line while no frames come, else empty."""
        return self.source.trouble

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.source.stop()
        self.box.close()
        self._thread.join(LEAVE_SECONDS)

    def _run(self) -> None:
        try:
            with self.source:
                for frame in self.source:
                    frame = frame.over_white()
                    self.box.put(_mirrored(frame) if self._mirror else frame)
                    if self.box.closed:
                        break
            self.box.close()
        except BaseException as error:
            self.box.close(error)


def _mirrored(frame: Frame) -> Frame:
    return frame.with_pixels(cv2.flip(frame.pixels, 1))  # type: ignore[arg-type]
