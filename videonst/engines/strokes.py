"""Larger or finer strokes: the network works at another resolution than that of the frame."""

from dataclasses import replace
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from videonst.engines import Engine, EngineDescription, PaintsSideBySide
from videonst.engines.colour import keep_colour
from videonst.errors import InputError
from videonst.frame import Frame, Pixels
from videonst.resize import scaled
from videonst.styles import StyleMix

LEAST_SCALE, LARGEST_SCALE = 0.25, 8.0


class StrokeScaled:
    """An engine around an engine: strokes `scale` times as large, painted on a picture `scale` times as small (2: half
    the width and height, a quarter of the time), and brought to the frame's size. Itself an `Engine`.

    Enlarging is bicubic, plus the detail of the photograph that the painting follows: the guided filter's linear model
    of the painting, fitted on the small picture and applied to the large one (He and Sun 2015, "Fast guided filter").

    Args:
        engine: what repaints.
        scale: of the strokes, `LEAST_SCALE` to `LARGEST_SCALE`.

    Raises:
        InputError: a scale out of range; while painting: a frame too small for it.
    """

    def __init__(self, engine: Engine, scale: float) -> None:
        if not LEAST_SCALE <= scale <= LARGEST_SCALE:
            raise InputError(
                f"stroke scale {scale:g} is out of range; expected {LEAST_SCALE:g} (fine) to {LARGEST_SCALE:g} (bold)"
            )
        self._engine = engine
        self._scale = scale

    @property
    def description(self) -> EngineDescription:
        return self._engine.description

    def side_by_side(self, width: int, height: int) -> tuple["StrokeScaled", int]:
        """See `PaintsSideBySide`."""
        if not isinstance(self._engine, PaintsSideBySide):
            return self, 1
        engine, painters = self._engine.side_by_side(*self._size(width, height))
        return StrokeScaled(engine, self._scale), painters

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        size = self._size(frame.width, frame.height)
        if mix.strength == 0 or size == (frame.width, frame.height):
            return self._engine.stylize(frame, mix)
        least = self.description.size.minimum
        if min(size) < least:
            raise InputError(
                f"stroke scale {self._scale:g} leaves {size[0]}x{size[1]} of the frame; expected sides of {least} "
                "pixels or more, so choose a smaller scale"
            )
        shrunk = replace(frame, pixels=scaled(frame.pixels, size), alpha=None)
        painted = self._engine.stylize(shrunk, replace(mix, keep_colour=False)).pixels
        if self._scale > 1:
            large = _enlarged(painted, shrunk.pixels, frame.pixels)
        else:
            large = scaled(painted, (frame.width, frame.height))
        return frame.with_pixels(keep_colour(large, frame.pixels) if mix.keep_colour else large)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """At which the network works."""
        return round(width / self._scale), round(height / self._scale)


def _enlarged(painted: Pixels, small: Pixels, photo: Pixels) -> Pixels:
    """`painted`, as large as `small`, at the size of `photo`, of which `small` is the shrunken picture."""
    size = photo.shape[1], photo.shape[0]
    guide = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    values = painted.astype(np.float32)
    mean_guide = _mean(guide)
    mean = _mean(values)
    variance = _mean(guide * guide) - mean_guide * mean_guide
    covariance = _mean(guide[..., None] * values) - mean_guide[..., None] * mean
    slope = _mean(covariance / (variance[..., None] + _FLAT**2))
    detail = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32) - _bicubic(guide, size)
    large = _bicubic(values, size) + _bicubic(slope, size) * detail[..., None]
    return cast(Pixels, np.rint(large).clip(0, 255).astype(np.uint8))


def _mean(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return cast("npt.NDArray[np.float32]", cv2.blur(values, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REFLECT))


def _bicubic(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    return cast("npt.NDArray[np.float32]", cv2.resize(values, size, interpolation=cv2.INTER_CUBIC))


_WINDOW = 5
"""Pixels a side, of the small picture, in which the painting is taken to follow the photograph linearly."""

_FLAT = 10.0
"""Levels: where the photograph varies by less, its detail is taken for noise and left out (the filter's epsilon)."""
