"""What the stabiliser remembers of the frame before."""

from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from videonst.engines import Engine, OnDevice, Statistics
from videonst.frame import Frame, Pixels
from videonst.styles import StyleMix
from videonst.temporal.carry import Levels
from videonst.temporal.flow import Field
from videonst.temporal.lookout import Motion, Seen, same

Weights = npt.NDArray[np.float32]
"""Of a mixture, (1, styles + 1)."""

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
class Steadied:
    """The `history`, in fractions of levels, with the newest painting in it, and the same as it is `shown`. `owed` is
    motion that the history has not been carried along yet, as `Way.motion`; None for none."""

    history: Levels | OnDevice
    shown: Pixels
    owed: Field | None = None


@dataclass(frozen=True)
class Past:
    """What is remembered of the frame before. What lies on a device is kept with the engine that it came from. What is
    a `Future` may be under way still.

    Attributes:
        seen: the input.
        motion: along which the history was carried to it, None where it was painted without a past.
        painted: by the engine.
        weights: of its mixture.
        steadied: what was shown.
        weights_held: mean mixture of the paintings in the history.
        engine: that painted.
        kept: statistics of its normalisation that were held entirely, None where the frame's own count.
        due: weight that is left to the statistics, with what they have not taken in since they last did.
    """

    seen: Seen
    motion: Future[Motion] | None
    painted: Future[Painted]
    weights: Weights
    steadied: Future[Steadied]
    weights_held: Weights
    engine: Engine
    kept: Statistics | OnDevice | None
    due: float

    @property
    def held(self) -> Statistics | OnDevice | None:
        """The statistics for the next frame; None where this one had too little in common with the one before."""
        if self.motion is not None and self.motion.result().trust.mean() < LEAST_TRUSTED:
            return None
        return self.painted.result().statistics if self.kept is None else self.kept
