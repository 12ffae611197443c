"""Colour operations on finished pictures."""

import cv2

from videonst.frame import Pixels


def keep_colour(painted: Pixels, photo: Pixels) -> Pixels:
    """Luma of the painting with chroma of the photograph (Gatys et al. 2017, section 5.2: luminance-only transfer).

    Args:
        painted, photo: RGB, uint8, (H, W, 3), of the same size.

    Returns:
        RGB, uint8, (H, W, 3).
    """
    result = cv2.cvtColor(photo, cv2.COLOR_RGB2YCrCb)
    result[..., 0] = cv2.cvtColor(painted, cv2.COLOR_RGB2YCrCb)[..., 0]
    return cv2.cvtColor(result, cv2.COLOR_YCrCb2RGB)  # type: ignore[return-value]
