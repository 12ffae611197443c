"""How steady a clip is: the measures, apart from the stabiliser that they judge.

The motion that a measure needs comes with the clip (exact), or is found by `estimated_motion`, whose method is the
reference implementation's of Lai et al. 2018 and shares nothing with the stabiliser but OpenCV's search.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from videonst.frame import Pixels
from videonst.temporal.flow import DisFlow, Field, place_of, resample


@dataclass(frozen=True)
class Motion:
    """From one frame to another.

    Attributes:
        flow: float32 (H, W, 2): from a pixel of the first to where it is in the second, pixels.
        valid: bool (H, W): seen in both.
    """

    flow: Field
    valid: npt.NDArray[np.bool_]


def warping_error(first: Pixels, second: Pixels, motion: Motion) -> float:
    """Root of the mean squared difference between `first` and `second` moved back onto it, where the motion is valid.

    The stability measure of Huang et al. 2017 and ReCoNet (Gao et al. 2018), over pixels and colours in [0, 1], for one
    pair; theirs is the root of the mean over all pairs of a clip. The mean is that of the valid pixels, so that a scene
    with much hidden is not steadier for it. The second frame is sampled linearly, as theirs. Even a perfect result has
    an error, because the sampling loses detail; a blurred one has less: read it beside the sharpness. NaN where nothing
    is valid.

    Args:
        first, second: RGB, uint8, (H, W, 3).
        motion: from `first` to `second`.
    """
    moved = resample(second.astype(np.float32), place_of(motion.flow))
    squares = ((first.astype(np.float32) - moved) / 255)[motion.valid] ** 2
    return float(np.sqrt(squares.mean())) if squares.size else float("nan")


def estimated_motion(first: Pixels, second: Pixels) -> Motion:
    """Motion between two frames of the input, at their own size, valid where `detect_occlusion` of Lai et al. 2018 has
    it: forward-backward consistency 0.01 and 0.5, motion boundaries 0.01 and 0.002, all in squared pixels.

    Args:
        first, second: RGB, uint8, (H, W, 3).
    """
    search = DisFlow("medium", side=max(first.shape))
    greys = search.prepare(first), search.prepare(second)
    forward, backward = search.flow(*greys), search.flow(*greys[::-1])
    place = place_of(forward)
    back = resample(backward, place)
    length = (forward**2).sum(2)
    consistent = ((forward + back) ** 2).sum(2) <= 0.01 * (length + (back**2).sum(2)) + 0.5
    slope = np.zeros_like(length)
    slope[:, :-1] = (np.diff(forward, axis=1) ** 2).sum(2)  # to the next pixel, as theirs
    slope[:-1] += (np.diff(forward, axis=0) ** 2).sum(2)
    height, width = length.shape
    x, y = place[..., 0], place[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return Motion(forward, consistent & (slope <= 0.01 * length + 0.002) & inside)


@dataclass(frozen=True)
class Flicker:
    """Of a scene in which nothing happens, levels of 8 bit.

    Attributes:
        step: mean absolute difference of successive frames.
        deviation: standard deviation of a pixel over time, mean over pixels.
        drift: change of the mean level from the first to the last frame.
    """

    step: float
    deviation: float
    drift: float


def flicker(frames: Sequence[Pixels]) -> Flicker:
    """Flicker of two frames or more, RGB uint8 (H, W, 3)."""
    values = np.stack(frames).astype(np.float32)
    return Flicker(
        step=float(np.abs(np.diff(values, axis=0)).mean()),
        deviation=float(values.std(0).mean()),
        drift=float(values[-1].mean() - values[0].mean()),
    )


def sharpness(picture: Pixels) -> float:
    """Mean magnitude of the gradient of luma (Sobel), levels: falls with every blur."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return float(cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)).mean())
