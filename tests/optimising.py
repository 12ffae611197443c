"""What the tests of the optimise engine share: a stand-in for VGG-19 with the same layers, so that a picture takes
milliseconds."""

import itertools

import cv2
import numpy as np
import torch
from torch import nn

from videonst.optimise import OptimiseEngine, Preset
from videonst.styles import StyleMix

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")
QUICK = Preset(name="quick", steps=(6,), next_steps=(4,), start="content", half=False)


class SmallFeatures(nn.Module):
    """Six layers of random convolutions, halving between stages as VGG-19 does."""

    name, layers = "small", LAYERS

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        channels = [3, 8, 12, 16, 16, 16, 16]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1).requires_grad_(False) for a, b in itertools.pairwise(channels)
        )

    def forward(self, image, layers):
        x, taps = (image - 0.5) * 4, {}
        for name, convolution in zip(LAYERS, self.convolutions, strict=True):
            if name not in ("relu1_1", "relu4_2"):
                x = torch.nn.functional.avg_pool2d(x, 2)
            x = torch.relu(convolution(x.to(convolution.weight.dtype)))
            if name in layers:
                taps[name] = x
        return taps


def picture(seed=0, height=64, width=80):
    """Smooth blotches, RGB uint8."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8), (width, height))


def write_painting(path):
    """Stripes."""
    rows = np.arange(96)[:, None, None] // 4 % 2 * 200
    cv2.imwrite(str(path), np.broadcast_to(rows, (96, 96, 3)).astype(np.uint8) + np.uint8([0, 20, 50]))
    return path


def engine(painting, preset=QUICK, **options):
    return OptimiseEngine(str(painting), preset, features=SmallFeatures(), device="cpu", **options)


def loss_of(painter_of, photo, painting, result):
    return painter_of._painter.losses(photo, StyleMix(((str(painting), 1.0),)), [result])[0]


def written(path, image, **options):
    cv2.imwrite(str(path), image, **options)
    return path
