"""How long a style is learnt, how far that is, and at what rate."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from videonst.errors import InputError

STROKE_SIZES = {"small": 320, "medium": 512, "large": 800}
"""Short side to which a painting is brought, pixels: the larger, the bolder its strokes. The shipped styles: 512."""

SMALLEST_PAINTING = 128
"""Short side of a painting at least, pixels: enlarged from less, its strokes are blur."""

LEARNING_RATE = 6e-2
"""Peak rate of Adam. A row takes far more than the weights of a network (3e-3)."""
HOLD = 0.5
"""Share of the budget with the full rate; then it falls on a cosine to 0."""
SETTLED = 0.005
"""Relative gain over `PATIENCE` scores below which a score has settled, and the rate falls early."""
PATIENCE = 6
SETTLING = 0.3
"""What then follows, relative to the work until then."""


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """What decides the result, beside the base, the paintings and the pictures.

    Attributes:
        minutes: time to learn in, all styles together.
        steps: number of steps instead of a time; the result is then the same in every run on the same kind of CPU.
        strength: of the style, 1 as the shipped ones; 2 weighs the painting twice as much against the photograph.
        stroke_size: key of `STROKE_SIZES`.
        seed: of the crops and their order.
        batch, crop: squares a step, and their side in pixels.
        learning_rate: peak rate of Adam.
    """

    minutes: float = 5.0
    steps: int | None = None
    strength: float = 1.0
    stroke_size: str = "medium"
    seed: int = 0
    batch: int = 1
    crop: int = 256
    learning_rate: float = LEARNING_RATE

    def __post_init__(self) -> None:
        if self.stroke_size not in STROKE_SIZES:
            raise InputError(f"unknown stroke size {self.stroke_size!r}; expected {', '.join(STROKE_SIZES)}")
        if not 0 < self.minutes < math.inf:
            raise InputError(f"the time to learn in is {self.minutes:g} minutes; expected more than 0")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"steps is {self.steps}; expected 1 or more")
        if not 0.1 <= self.strength <= 10:
            raise InputError(f"the strength of the style is {self.strength:g}; expected 0.1 to 10")


class Budget:
    """The time or steps of a task: what is spent, and the rate that follows from it.

    The rate holds for a part of the budget, then falls on a cosine to 0; where the scores settle before, it falls from
    there, and less is spent.

    Args:
        settings: as asked for; time counts from now on.

    Attributes:
        step: steps done.
        settled: share of the budget at which the scores settled; None as long as they have not.
        history: score of all styles together, best so far, at each evaluation.
    """

    def __init__(self, settings: LearnSettings) -> None:
        self._settings = settings
        self._began = time.monotonic()
        self.step = 0
        self.settled: float | None = None
        self.history: list[float] = []

    def state(self) -> dict[str, Any]:
        """For `resume`."""
        spent = {"step": self.step, "seconds": self.seconds, "history": self.history, "settled": self.settled}
        return spent | {"asked": (self._settings.minutes, self._settings.steps)}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on after the work of another run. Where other time or steps are given, scores may settle anew."""
        self.step = state["step"]
        self._began -= state["seconds"]
        if state["asked"] == (self._settings.minutes, self._settings.steps):
            self.history, self.settled = state["history"], state["settled"]

    @property
    def seconds(self) -> float:
        """Spent."""
        return time.monotonic() - self._began

    @property
    def share(self) -> float:
        """Of what will be spent at most; 1 and more is the end."""
        return self._position / self._end

    @property
    def seconds_left(self) -> float:
        """At most; nan where nothing tells."""
        if self._settings.steps is None:
            return max(0.0, 60 * self._settings.minutes * self._end - self.seconds)
        share = min(1.0, self.share)
        return self.seconds * (1 - share) / share if share else math.nan

    @property
    def rate(self) -> float:
        """Of Adam, at present."""
        begin = HOLD if self.settled is None else self.settled
        fallen = min(1.0, max(0.0, (self._position - begin) / (self._end - begin)))
        return self._settings.learning_rate * (1 + math.cos(math.pi * fallen)) / 2

    def record(self, score: float) -> None:
        """Takes a score into account."""
        self.history.append(score)
        if self.settled is None and self._position < HOLD and len(self.history) > PATIENCE:
            before = self.history[-1 - PATIENCE]
            if before - score < SETTLED * before:
                self.settled = self._position

    @property
    def _position(self) -> float:
        if self._settings.steps is not None:
            return self.step / self._settings.steps
        return self.seconds / (60 * self._settings.minutes)

    @property
    def _end(self) -> float:
        return 1.0 if self.settled is None else self.settled * (1 + SETTLING)
