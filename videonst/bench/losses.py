"""Content and style loss of results, as the trainer measures them (needs torch and the VGG-19 weights)."""

import glob
from collections.abc import Callable
from pathlib import Path

import torch

from videonst.bench.scenes import read_picture
from videonst.bench.stability import Losses
from videonst.errors import InputError
from videonst.frame import Pixels
from videonst.perceptual import Vgg19, content_loss, style_loss, style_statistics
from videonst.training.data import resize_short_side, to_tensor

SIZE = 256
"""Short side at which results and paintings are compared, pixels."""

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
CONTENT_LAYER = "relu3_3"


def perceptual_losses(vgg_weights: Path, paintings: Path) -> Callable[[str], Losses]:
    """The losses by style. For a style without a painting `NAME.*` in the folder `InputError` is raised."""
    vgg = Vgg19(vgg_weights)

    @torch.inference_mode()
    def features(picture: Pixels) -> dict[str, torch.Tensor]:
        small = resize_short_side(picture, SIZE) if min(picture.shape[:2]) > SIZE else picture
        found: dict[str, torch.Tensor] = vgg(to_tensor(small), (*STYLE_LAYERS, CONTENT_LAYER))
        return found

    def of_style(style: str) -> Losses:
        found = sorted(paintings.glob(f"{glob.escape(style)}.*"))
        if not found:
            raise InputError(f"there is no painting of {style} in {paintings}; expected {style}.jpg or the like")
        target = features(read_picture(found[0]))
        wanted = style_statistics({name: target[name] for name in STYLE_LAYERS})

        def losses(result: Pixels, photo: Pixels) -> tuple[float, float]:
            painted, content = features(result), features(photo)[CONTENT_LAYER]
            statistics = style_statistics({name: painted[name] for name in STYLE_LAYERS})
            return float(content_loss(painted[CONTENT_LAYER], content)), float(style_loss(statistics, wanted))

        return losses

    return of_style
