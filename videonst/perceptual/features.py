"""Which network the losses look through: VGG-19, or the compact one that ships with videonst."""

from pathlib import Path
from urllib.parse import urlparse

import torch
from torchvision.models import VGG19_Weights

from videonst.errors import InputError
from videonst.perceptual.compact import Compact, open_compact
from videonst.perceptual.vgg import Vgg19

Features = Vgg19 | Compact
"""A perceptual network: `name`, `layers`, and the call (image (B, 3, H, W) RGB in [0, 1], layers) -> {layer: map}."""

FEATURES = ("auto", "vgg19", "compact")
"""What `open_features` knows."""


def open_features(name: str = "auto", vgg: Path | None = None) -> Features:
    """Opens a perceptual network; its attribute `name` says which one it is.

    Args:
        name: "vgg19", "compact", or "auto": VGG-19 where a file is given or torchvision has downloaded its weights
            before, else the compact network. Only "vgg19" downloads (550 MB, once).
        vgg: VGG-19 weights as for `Vgg19`.

    Raises:
        InputError: another name; weights that are missing or unreadable; a file of VGG-19 weights for "compact".
    """
    if name not in FEATURES:
        raise InputError(f"unknown features {name!r}; expected {', '.join(FEATURES[:-1])} or {FEATURES[-1]}")
    if name == "compact" and vgg is not None:
        raise InputError(f"features compact need no VGG-19 weights; leave out {vgg}, or ask for features vgg19")
    if name == "compact" or (name == "auto" and vgg is None and not has_cached_vgg19()):
        return open_compact()
    return Vgg19(vgg)


def has_cached_vgg19() -> bool:
    """Whether torchvision's VGG-19 weights lie in the folder where torch keeps its downloads (`TORCH_HOME`)."""
    file = Path(urlparse(VGG19_Weights.IMAGENET1K_V1.url).path).name
    return (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file()
