"""Which model and working size hold the asked frame rate on this machine. Pure decisions: no threads, no sleeping."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from videonst.live.meter import percentile

DEFAULT_RATE = 30.0
"""Frames per second."""

WORKING_LINES = (1080, 720, 540, 432, 360, 288, 240, 192, 144)
"""Working sizes, shorter side in pixels, each about two thirds of the pixels of the one before."""

LEAST_LINES: Mapping[str, int] = MappingProxyType({"full": 360, "fast": 288, "tiny": 144})
"""Below these a smaller model at a larger size looks better than the model itself."""

RELATIVE_COST: Mapping[str, float] = MappingProxyType({"full": 9.5, "fast": 2.7, "tiny": 1.0})
"""Time per pixel against `tiny`, measured in fp32 on two cores. A first guess: what has been measured on this machine
goes before it."""

HEADROOM = 0.8
"""Share of the frame interval that a rung may be expected to take, so that a step does not fail at once."""

FIRST_LINES = 240
"""Where `auto` begins, with the smallest model: loads quickly and is rarely too slow."""

JUDGED_SECONDS = 1.5
"""Evidence for one decision: 45 frames at 30 fps, so that two slow ones, 4 %, do not decide."""

SUSTAINED_SECONDS = 0.5
"""After so long with half of the frames too slow, no more evidence is awaited."""

PATIENCE_SECONDS = 3.0
"""How long a rung must have had time to spare before a better one is tried."""

FIRST_PATIENCE_SECONDS = 1.0
"""The same before the first overload: at the start the way is up."""

FEWEST_SPARE_FRAMES = 10
"""No step up on fewer, however long they took to come."""

BLOCKED_SECONDS, LONGEST_BLOCKED_SECONDS = 15.0, 240.0
"""How long a rung that was too slow is not tried again: doubles every time, up to the second value."""


@dataclass(frozen=True)
class Rung:
    """A quality: a model and the working size.

    Attributes:
        model: name, or path of a file.
        lines: shorter side of the picture that is painted, pixels.
    """

    model: str
    lines: int

    def __str__(self) -> str:
        return f"{Path(self.model).stem} at {self.lines} lines"


def ladder(models: Sequence[str], frame_lines: int, lines: int | None = None) -> tuple[Rung, ...]:
    """All qualities for frames of one size, best first.

    Args:
        models: best first; one is a pinned model.
        frame_lines: shorter side of the frames; nothing is painted larger.
        lines: a pinned working size; None = all.
    """
    if lines is not None:
        return tuple(Rung(model, min(lines, frame_lines)) for model in models)
    whole = min(frame_lines, WORKING_LINES[0])
    sizes = (whole, *(size for size in WORKING_LINES if size < whole))
    return tuple(
        Rung(model, size)
        for model in models
        for size in sizes
        if size >= LEAST_LINES.get(model, 0) or len(models) == 1 or size == whole
    )


class QualityController:
    """Chooses the best rung of a ladder whose frames take no longer than the frame interval at the 95th percentile.

    An overload is answered within two seconds, with the best rung that should be quick enough. After a while with time
    to spare a better rung is tried; one that failed is left alone for a while that doubles every time.

    Args:
        rungs: best first, at least one; one alone is pinned.
        rate: frames per second to hold.
        clock: seconds, monotonic.

    Attributes:
        rate: as given; may be set.
        rung: the present choice.
    """

    def __init__(
        self, rungs: Sequence[Rung], rate: float = DEFAULT_RATE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._rungs = tuple(rungs)
        self._blocked: dict[Rung, _Block] = {}
        self._seconds_per_cost: float | None = None
        self._patience = FIRST_PATIENCE_SECONDS
        self._judged_from: float | None = None
        self._frames: deque[tuple[float, float]] = deque()
        cheapest = min(self._rungs, key=_cost)
        small = [rung for rung in self._rungs if rung.model == cheapest.model and rung.lines <= FIRST_LINES]
        self._go(max(small, key=_cost, default=cheapest))

    @property
    def pinned(self) -> bool:
        """There is nothing to choose."""
        return len(self._rungs) == 1

    def offer(self, rungs: Sequence[Rung]) -> None:
        """Other rungs to choose from, as when frames of another size come or a model is pinned. The present one stays
        where it is among them; what has been measured is kept."""
        self._rungs = tuple(rungs)
        if self.rung not in self._rungs:
            self._go(self._fitting(self._rungs))

    def record(self, seconds: float, *, painted: bool = True) -> bool:
        """Takes note of a frame that is done.

        Args:
            seconds: what it took, from taking it up to being ready for the next.
            painted: the network ran for it. A frame that was returned as it came says nothing about the machine.

        Returns:
            Whether the rung changed.
        """
        if not painted:
            return False
        now = self._clock()
        if self._judged_from is None:  # the first frame of a size pays for memory and the choice of kernels
            self._judged_from = now
            return False
        self._frames.append((now, seconds))
        while self._frames[0][0] <= now - max(PATIENCE_SECONDS, JUDGED_SECONDS):
            self._frames.popleft()
        return not self.pinned and (self._step_down(now) or self._step_up(now))

    def _step_down(self, now: float) -> bool:
        budget = 1 / self.rate
        recent = self._last(JUDGED_SECONDS, now)
        sustained = sum(recent) >= SUSTAINED_SECONDS and percentile(recent, 50) > budget
        now_and_then = self._judged_for(JUDGED_SECONDS, now) and percentile(recent, 95) > budget
        cheaper = [rung for rung in self._rungs if _cost(rung) < _cost(self.rung)]
        if not cheaper or not (sustained or now_and_then):
            return False
        self._seconds_per_cost = percentile(recent, 95) / _cost(self.rung)
        before = self._blocked.get(self.rung)
        wait = min(2 * before.seconds, LONGEST_BLOCKED_SECONDS) if before else BLOCKED_SECONDS
        self._blocked[self.rung] = _Block(now + wait, wait)
        self._patience = PATIENCE_SECONDS
        self._go(self._fitting(cheaper))
        return True

    def _step_up(self, now: float) -> bool:
        recent = self._last(self._patience, now)
        if not self._judged_for(self._patience, now) or len(recent) < FEWEST_SPARE_FRAMES:
            return False
        self._seconds_per_cost = percentile(recent, 95) / _cost(self.rung)
        blocked = [rung for rung, block in self._blocked.items() if now < block.until]
        for rung in self._rungs[: self._rungs.index(self.rung)]:
            if self._is_fitting(rung) and not any(_is_harder(rung, than) for than in blocked):
                self._go(rung)
                return True
        return False

    def _go(self, rung: Rung) -> None:
        self.rung = rung
        self._judged_from = None
        self._frames.clear()

    def _judged_for(self, seconds: float, now: float) -> bool:
        return self._judged_from is not None and now - self._judged_from >= seconds

    def _last(self, seconds: float, now: float) -> list[float]:
        return [took for at, took in self._frames if at > now - seconds]

    def _fitting(self, rungs: Sequence[Rung]) -> Rung:
        """The best one that should be quick enough, else the cheapest."""
        return next((rung for rung in rungs if self._is_fitting(rung)), min(rungs, key=_cost))

    def _is_fitting(self, rung: Rung) -> bool:
        return self._seconds_per_cost is not None and self._seconds_per_cost * _cost(rung) <= HEADROOM / self.rate


@dataclass(frozen=True)
class _Block:
    """A rung is not tried again before `until`; it was shut for `seconds`."""

    until: float
    seconds: float


def _cost(rung: Rung) -> float:
    """Relative time per frame."""
    return RELATIVE_COST.get(rung.model, 1.0) * rung.lines**2


def _is_harder(rung: Rung, than: Rung) -> bool:
    """For certain, whatever the machine: no less in either respect."""
    models = RELATIVE_COST.get(rung.model, 1.0) >= RELATIVE_COST.get(than.model, 1.0)
    return models and rung.lines >= than.lines
