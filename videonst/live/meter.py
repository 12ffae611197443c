"""What a viewer feels: frames per second, delay, and frames dropped, over the last moments."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

WINDOW_SECONDS = 2.0
"""Long enough for a percentile of 60 frames at 30 fps, short enough to follow a slider."""


class MeterReading(NamedTuple):
    """
    Attributes:
        fps: frames shown per second of the window.
        delay_p50, delay_p95: seconds from a frame's arrival to its result; 0 where none was shown.
        drops: frames dropped within the window.
    """

    fps: float
    delay_p50: float
    delay_p95: float
    drops: int

    def __str__(self) -> str:
        delays = f"{self.delay_p50 * 1000:.0f}/{self.delay_p95 * 1000:.0f} ms"
        return f"{self.fps:.1f} fps, delay p50/p95 {delays}, {self.drops} dropped"


class Meter:
    """Counts over a sliding window. May be read from another thread than the one that counts.

    Args:
        window: seconds.
        clock: seconds, monotonic.
    """

    def __init__(self, window: float = WINDOW_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._lock = threading.Lock()
        self._shown: deque[tuple[float, float]] = deque()
        self._dropped: deque[tuple[float, int]] = deque()
        self._started: float | None = None

    def shown(self, delay: float, drops: int = 0) -> None:
        """A result is there, `delay` seconds after its frame arrived; `drops` frames were passed over before it."""
        with self._lock:
            now = self._clock()
            if self._started is None:
                self._started = now - delay
            self._shown.append((now, delay))
            if drops:
                self._dropped.append((now, drops))
            self._forget(now)

    def read(self) -> MeterReading:
        with self._lock:
            now = self._clock()
            self._forget(now)
            if self._started is None or not self._shown:
                return MeterReading(0.0, 0.0, 0.0, sum(n for _, n in self._dropped))
            seconds = min(self._window, max(now - self._started, 1e-9))
            delays = [delay for _, delay in self._shown]
            return MeterReading(
                len(delays) / seconds,
                percentile(delays, 50),
                percentile(delays, 95),
                sum(n for _, n in self._dropped),
            )

    def _forget(self, now: float) -> None:
        for entries in (self._shown, self._dropped):
            while entries and entries[0][0] <= now - self._window:
                entries.popleft()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that at least `percent` of them do not exceed (nearest rank; Hyndman and Fan 1996,
    definition 1). Of one value it is that value."""
    ranked = sorted(values)
    rank = -(-len(ranked) * percent // 100)
    return ranked[max(0, int(rank) - 1)]
