"""What the stabiliser remembers of the frame before."""

from concurrent.futures import Future
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from videonst.engines import Engine, OnDevice, Statistics
from videonst.frame import Frame, Pixels
from videonst.styles import StyleMix
from videonst.temporal.carry import Levels, Way
from videonst.temporal.flow import Field

Weights = npt.NDArray[np.float32]
"""Of a mixture, (1, styles + 1)."""

LONGEST_GAP = Fraction(1)
"""Seconds between frames after which the past is forgotten: the camera was stopped, or much was skipped."""

LEAST_TRUSTED = 0.15
"""Mean trust below which a frame has too little in common with the one before for its statistics to be held: a cut that
`SceneCuts` missed, or a whip pan. Cuts of three real clips had at most 0.09, all else 0.22 and more."""


@dataclass(frozen=True)
class Alone:
    """A frame that was `painted` on its own, or is being painted: its `pixels`, with `mix` by `engine`."""

    pixels: Pixels
    mix: StyleMix
    engine: Engine
    painted: Future[Frame]

    def shows(self, frame: Frame, mix: StyleMix, engine: Engine) -> bool:
        return self.engine is engine and self.mix == mix and same(self.pixels, frame.pixels)


@dataclass(frozen=True)
class Painted:
    """A `painting` by the engine, alone, and the `statistics` it was normalised with; None where it holds none."""

    painting: Pixels | OnDevice
    statistics: Statistics | OnDevice | None


@dataclass(frozen=True)
class Found:
    """How the picture came from the frame before, and what is `owed` after it: motion that the history has not been
    carried along yet, as `Way.motion`; None for none."""

    way: Way
    owed: Field | None


@dataclass(frozen=True)
class Steadied:
    """The `history`, in fractions of levels, with the newest painting in it, and the same as it is `shown`."""

    history: Levels | OnDevice
    shown: Pixels


@dataclass(frozen=True)
class Past:
    """What is remembered of the frame before. What lies on a device is kept with the engine that it came from. What is
    a `Future` may be under way still.

    Attributes:
        frame: the input.
        keep_colour: of its mixture.
        grey: as the flow wants it.
        painted: by the engine.
        weights: of its mixture.
        steadied: what was shown.
        weights_held: mean mixture of the paintings in the history.
        engine: that painted.
        kept: statistics of its normalisation that were held entirely, None where the frame's own count.
        due: weight that is left to the statistics, with what they have not taken in since they last did.
        found: how it came from the one before it.
    """

    frame: Frame
    keep_colour: bool
    grey: Pixels
    painted: Future[Painted]
    weights: Weights
    steadied: Future[Steadied]
    weights_held: Weights
    engine: Engine
    kept: Statistics | OnDevice | None
    due: float
    found: Future[Found]

    @property
    def held(self) -> Statistics | OnDevice | None:
        """The statistics for the next frame; None where this one had too little in common with the one before."""
        if self.found.result().way.trust.mean() < LEAST_TRUSTED:
            return None
        return self.painted.result().statistics if self.kept is None else self.kept

    @property
    def owed(self) -> Field | None:
        return self.found.result().owed

    def leads_to(self, frame: Frame, mix: StyleMix) -> bool:
        same = self.frame.pixels.shape == frame.pixels.shape and self.keep_colour == mix.keep_colour
        return same and 0 <= frame.time - self.frame.time <= LONGEST_GAP

    def shows(self, frame: Frame, weights: Weights) -> bool:
        return np.array_equal(self.weights, weights) and same(self.frame.pixels, frame.pixels)


def same(first: Pixels, second: Pixels) -> bool:
    """Whether two frames are equal. A few rows tell most others apart."""
    few = slice(None, None, SPARSE_ROWS)
    return np.array_equal(first[few], second[few]) and np.array_equal(first, second)


SPARSE_ROWS = 64
"""One row of so many is compared first."""


_Result = TypeVar("_Result")


def at_hand(result: _Result) -> Future[_Result]:
    """What need not be waited for."""
    future: Future[_Result] = Future()
    future.set_result(result)
    return future
