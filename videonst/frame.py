"""The one type that flows from sources through engines to sinks."""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import cast

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
        alpha: opacity, uint8, (height, width), 255 opaque, not multiplied into `pixels`; None where the source has no
            transparency.
    """

    pixels: Pixels = field(repr=False)
    pts: int = 0
    time_base: Fraction = Fraction(1, 1000)
    duration: int = 0
    colour: ColourTags = ColourTags()
    alpha: Pixels | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise InputError(
                f"a frame needs uint8 pixels (height, width, 3), got {self.pixels.dtype} {self.pixels.shape}"
            )
        if self.alpha is not None and (self.alpha.dtype != np.uint8 or self.alpha.shape != self.pixels.shape[:2]):
            raise InputError(
                f"alpha needs uint8 {self.pixels.shape[:2]}, as the pixels, got {self.alpha.dtype} {self.alpha.shape}"
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

    @property
    def is_transparent(self) -> bool:
        """Whether anything shows through."""
        return self.alpha is not None and bool((self.alpha < 255).any())

    def with_pixels(self, pixels: Pixels) -> "Frame":
        """The same moment with other pixels, and the same alpha."""
        return replace(self, pixels=pixels)

    def over_white(self) -> "Frame":
        """Without alpha, laid over white."""
        if not self.is_transparent:
            return replace(self, alpha=None)
        alpha = cast(Pixels, self.alpha)[..., None].astype(np.float32) / 255
        flat: Pixels = np.rint(self.pixels * alpha + 255 * (1 - alpha)).astype(np.uint8)
        return replace(self, pixels=flat, alpha=None)
