"""A recording that stands in for a camera: every frame comes when its presentation time says."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from types import TracebackType
from typing import Self

from videonst.frame import Frame
from videonst.sources.source import Source, SourceInfo, Stoppable

LOST_SECONDS = 0.5
"""A frame that is this late (a slow decoder, a suspended machine) is not caught up with: the recording goes on from
there. Up to this it catches up, and who takes only the newest frame passes some over."""

LONGEST_SECONDS = 60.0
"""No frame is waited for longer than this: its time is taken for a jump."""

STILL_RATE = 30
"""Frames per second into which a single picture is repeated."""


@dataclass
class Pacer:
    """Lays the times of a recording along a clock. Pure: it neither waits nor looks at a clock itself."""

    origin: float | None = None

    def wait(self, time: float, now: float) -> float:
        """Seconds until a frame is due, 0 where it is due or late.

        Args:
            time: presentation time of the frame, seconds.
            now: seconds on the clock.
        """
        if self.origin is None or not -LOST_SECONDS <= self.origin + time - now <= LONGEST_SECONDS:
            self.origin = now - time
            return 0.0
        return max(0.0, self.origin + time - now)


class PacedSource:
    """Yields the frames of another source when they are due.

    With `loop` it starts again at the end, and times go on. A single picture is repeated for ever.

    Args:
        open_source: opens the recording; called again for every round.
        loop: start again at the end.
        clock: seconds, monotonic.
        wait: waits so many seconds, or until stopped; None takes one that `stop` wakes.

    Attributes:
        trouble: always empty, a recording cannot be unplugged.

    Raises:
        InputError: what `open_source` raises.
    """

    trouble = ""

    def __init__(
        self,
        open_source: Callable[[], Source],
        *,
        loop: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._open, self._loop, self._clock = open_source, loop, clock
        self._stopping = threading.Event()
        self._wait = wait or self._stopping.wait
        self._source = open_source()
        self.info: SourceInfo = self._source.info

    def stop(self) -> None:
        """The iteration ends soon. From any thread."""
        self._stopping.set()
        if isinstance(self._source, Stoppable):
            self._source.stop()

    def __iter__(self) -> Iterator[Frame]:
        pacer = Pacer()
        for frame in self._repeated() if self.info.is_still else self._rounds():
            seconds = pacer.wait(float(frame.time), self._clock())
            if seconds:
                self._wait(seconds)
            if self._stopping.is_set():
                return
            yield frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._source.__exit__(kind, error, trace)

    def _repeated(self) -> Iterator[Frame]:
        """The picture, over and over."""
        still = next(iter(self._source))
        number = 0
        while True:
            yield replace(still, pts=number, time_base=Fraction(1, STILL_RATE), duration=1)
            number += 1

    def _rounds(self) -> Iterator[Frame]:
        """Round after round, each after the one before in time."""
        offset = 0
        while True:
            end = offset
            for frame in self._source:
                moved = replace(frame, pts=frame.pts + offset)
                end = moved.pts + max(1, moved.duration)
                yield moved
            if not self._loop or end == offset:
                return
            offset = end
            self._source.__exit__(None, None, None)
            # PyAV's objects refer to each other in circles, with buffers of 10 to 20 MB a round between them that
            # Python does not see when it decides whether to collect.
            gc.collect()
            self._source = self._open()
