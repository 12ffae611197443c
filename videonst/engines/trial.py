"""What a device, or another way to paint, is tried on before it is used."""

import numpy as np

from videonst.frame import Pixels

SIDE = 32
"""Of the frames, pixels."""

TOLERANCE = 2
"""Levels by which a trial may come back changed."""


def ramp() -> Pixels:
    """From black to white, (SIDE, SIDE, 3)."""
    return np.repeat(np.linspace(0, 255, SIDE).astype(np.uint8), SIDE * 3).reshape(SIDE, SIDE, 3)


def levels_off(found: Pixels, expected: Pixels) -> int:
    """The largest difference."""
    return int(np.abs(np.subtract(found, expected, dtype=np.int16)).max())
