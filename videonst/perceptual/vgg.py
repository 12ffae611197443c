"""VGG-19 as a feature extractor (Simonyan and Zisserman, 2015), frozen."""

import pickle
from collections.abc import Collection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VGG19_Weights, vgg19

from videonst.errors import InputError

LAYERS = {
    "relu1_1": 1, "relu1_2": 3,
    "relu2_1": 6, "relu2_2": 8,
    "relu3_1": 11, "relu3_2": 13, "relu3_3": 15, "relu3_4": 17,
    "relu4_1": 20, "relu4_2": 22, "relu4_3": 24, "relu4_4": 26,
    "relu5_1": 29,
}  # fmt: skip
"""Index in torchvision's `vgg19().features` of each activation that can be asked for."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Vgg19(nn.Module):
    """Activations of VGG-19 at named layers, up to relu5_1. Attributes: `name`, and `layers` that can be asked for.

    Args:
        weights: a `.safetensors` or `.pth` file with torchvision's keys (`features.0.weight` …); None downloads
            torchvision's ImageNet weights (550 MB) into its cache.
        average: pool by the mean instead of the maximum, as Gatys et al. 2016; also faster.

    Raises:
        InputError: the file is missing, unreadable or holds other weights.
    """

    name = "vgg19"
    layers = tuple(LAYERS)

    def __init__(self, weights: Path | None = None, *, average: bool = False) -> None:
        super().__init__()
        self.average = average
        if weights is None:
            features = _download()
        else:
            features = vgg19(weights=None).features[: LAYERS["relu5_1"] + 1]
            _load(features, weights)
        self.features = features.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.mean = nn.Buffer(torch.tensor(MEAN).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Maps (B, 3, H, W), RGB in [0, 1], to {layer: (B, C, H / stride, W / stride)}."""
        indices = {LAYERS[name]: name for name in layers}
        x = ((image - self.mean) / self.std).to(self.mean.dtype).contiguous(memory_format=torch.channels_last)
        taps = {}
        for index, layer in enumerate(self.features):
            x = self._pool(x) if isinstance(layer, nn.MaxPool2d) else layer(x)
            if index in indices:
                taps[indices[index]] = x
                if len(taps) == len(indices):
                    break
        return taps

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.average else max_pool(x)


def max_pool(x: Tensor) -> Tensor:
    """2x2 maximum with stride 2, as `nn.MaxPool2d(2)`; written so that its gradient fuses (a third off a CPU step)."""
    batch, channels, height, width = x.shape
    x = x[:, :, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, channels, height // 2, 2, width // 2, 2).amax((3, 5))


def _download() -> nn.Sequential:
    try:
        features: nn.Sequential = vgg19(weights=VGG19_Weights.IMAGENET1K_V1, progress=False).features
        return features[: LAYERS["relu5_1"] + 1]
    except OSError as error:
        raise InputError(
            f"cannot download torchvision's VGG-19 weights ({error}); fetch them once on a machine with network, "
            "or name a local file with --vgg FILE"
        ) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(
            f"torchvision's VGG-19 weights in {torch.hub.get_dir()} cannot be read; remove them, or name a local file "
            "with --vgg FILE"
        ) from error


def _load(features: nn.Sequential, path: Path) -> None:
    if not path.is_file():
        raise InputError(f"VGG-19 weights {path} do not exist; name a .safetensors or .pth file with --vgg FILE")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = {k.removeprefix("features."): v.float() for k, v in state.items() if k.startswith("features.")}
        wanted = features.state_dict()
        features.load_state_dict({k: state[k] for k in wanted})
    except Exception as error:
        raise InputError(
            f"{path} does not hold VGG-19 weights with torchvision's keys features.0.weight … features.28.bias: {error}"
        ) from error
