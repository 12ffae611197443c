"""Content and style loss of results, as the trainer measures them (needs torch and the VGG-19 weights)."""

from collections.abc import Callable
from pathlib import Path

import torch

from videonst.bench.scenes import read_picture
from videonst.bench.stability import Losses
from videonst.frame import Pixels
from videonst.perceptual import Vgg19, content_loss, style_loss, style_statistics
from videonst.training.data import resize_short_side, to_tensor

SIZE = 256
"""Short side at which results and paintings are compared, pixels."""

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
CONTENT_LAYER = "relu3_3"


def perceptual_losses(vgg_weights: Path, paintings: Path) -> Callable[[str], Losses | None]:
    """The losses by style; None for a style without a painting `NAME.*` in the folder."""
    vgg = Vgg19(vgg_weights)

    @torch.inference_mode()
    def features(picture: Pixels) -> dict[str, torch.Tensor]:
        small = resize_short_side(picture, SIZE) if min(picture.shape[:2]) > SIZE else picture
        found: dict[str, torch.Tensor] = vgg(to_tensor(small), (*STYLE_LAYERS, CONTENT_LAYER))
        return found

    def of_style(style: str) -> Losses | None:
        found = sorted(paintings.glob(f"{style}.*"))
        if not found:
            return None
        target = features(read_picture(found[0]))
        wanted = style_statistics({name: target[name] for name in STYLE_LAYERS})

        def losses(result: Pixels, photo: Pixels) -> tuple[float, float]:
            painted, content = features(result), features(photo)[CONTENT_LAYER]
            statistics = style_statistics({name: painted[name] for name in STYLE_LAYERS})
            return float(content_loss(painted[CONTENT_LAYER], content)), float(style_loss(statistics, wanted))

        return losses

    return of_style
