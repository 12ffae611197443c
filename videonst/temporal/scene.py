"""Scene cuts: when what was painted before says nothing about what is shown now."""

from typing import Any

import cv2
import numpy.typing as npt

from videonst.frame import Pixels

THUMBNAIL = (160, 90)
"""Width and height at which frames are compared, pixels: a cut shows at any size, and noise averages out."""

CUT = 60.0
"""Mean absolute difference of luma, levels, that is a cut whatever came before. PySceneDetect's measure adds hue, but
the hue of a noisy dark frame jumps without a cut. Cuts of real clips had 50 to 84, fast pans up to 46."""

SUDDEN = 20.0
SUDDEN_RATIO = 4.0
"""A smaller difference is a cut from this many levels on where it exceeds this many times the scene's running mean."""

MEMORY = 0.9
"""Share of the running mean that stays at each frame."""


class SceneCuts:
    """Watches frames in order for cuts.

    Attributes:
        mean: running mean of the scene's differences, levels; None before the first.
    """

    def __init__(self) -> None:
        self.mean: float | None = None
        self._luma: npt.NDArray[Any] | None = None

    def is_cut(self, grey: Pixels) -> bool:
        """Whether a scene begins with `grey`, uint8 (h, w) of any size. The first frame is no cut."""
        luma = _thumbnail(grey)
        before, self._luma = self._luma, luma
        if before is None:
            return False
        difference = cv2.norm(before, luma, cv2.NORM_L1) / luma.size
        sudden = max(SUDDEN, SUDDEN_RATIO * self.mean) if self.mean is not None else CUT
        if difference > min(sudden, CUT):
            self.mean = None
            return True
        self.mean = difference if self.mean is None else MEMORY * self.mean + (1 - MEMORY) * difference
        return False

    def resume(self, grey: Pixels, mean: float | None) -> None:
        """Goes on after `grey` with the `mean` of then."""
        self._luma, self.mean = _thumbnail(grey), mean


def _thumbnail(grey: Pixels) -> npt.NDArray[Any]:
    return cv2.resize(grey, THUMBNAIL, interpolation=cv2.INTER_AREA)
