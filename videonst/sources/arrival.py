"""Times of frames that bring none: when they came."""

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from videonst.frame import Frame

TIME_BASE = Fraction(1, 1_000_000)
"""Microseconds."""

RETRY_SECONDS = 1.0
"""Between two attempts to open a camera or stream that has gone."""


class ArrivalClock:
    """Stamps frames with the time since it was made, each later than the one before.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._last = -1

    def stamp(self, frame: Frame) -> Frame:
        self._last = max(self._last + 1, round((self._clock() - self._started) / TIME_BASE))
        return replace(frame, pts=self._last, time_base=TIME_BASE, duration=0)
