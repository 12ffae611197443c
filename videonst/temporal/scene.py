"""Scene cuts: when what was painted before says nothing about what is shown now."""

import cv2
import numpy as np
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
        self._luma: npt.NDArray[np.uint8] | None = None

    def is_cut(self, pixels: Pixels) -> bool:
        """Whether a scene begins with `pixels`, RGB uint8 (H, W, 3). The first frame is no cut."""
        luma = _thumbnail(pixels)
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

    def resume(self, pixels: Pixels, mean: float | None) -> None:
        """Goes on after `pixels` with the `mean` of then."""
        self._luma, self.mean = _thumbnail(pixels), mean


def _thumbnail(pixels: Pixels) -> npt.NDArray[np.uint8]:
    small = cv2.resize(pixels, THUMBNAIL, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]
