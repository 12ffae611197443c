"""The one type that flows from sources through engines to sinks."""

from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from videonst.errors import InputError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ColourTags:
    """Colour description as the code points of ITU-T H.273 (the numbers that FFmpeg uses); 2 = unspecified.

    `full_range` is None where the source does not say.
    """

    matrix: int = 2
    primaries: int = 2
    transfer: int = 2
    full_range: bool | None = None


@dataclass(frozen=True)
class Frame:
    """A picture, when it is shown, and for how long.

    Attributes:
        pixels: RGB, uint8, (height, width, 3), C-contiguous.
        pts: presentation timestamp in units of `time_base`.
        time_base: seconds per unit, exact.
        duration: in units of `time_base`; 0 where unknown.
        colour: tags that the pixels came with, and with which they should be written.
    """

    pixels: Pixels = field(repr=False)
    pts: int = 0
    time_base: Fraction = Fraction(1, 1000)
    duration: int = 0
    colour: ColourTags = ColourTags()

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise InputError(
                f"a frame needs uint8 pixels (height, width, 3), got {self.pixels.dtype} {self.pixels.shape}"
            )

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def time(self) -> Fraction:
        """Presentation time, seconds, exact."""
        return self.pts * self.time_base

    def with_pixels(self, pixels: Pixels) -> "Frame":
        """The same moment with other pixels."""
        return replace(self, pixels=pixels)
