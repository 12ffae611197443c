"""A compact network that predicts the activations of VGG-19 with average pooling: narrow, quick on a CPU, small enough
to ship.

Distilled from VGG-19 by `tools/distil_features.py`; the idea is that of Wang et al.: *Collaborative Distillation for
Ultra-Resolution Universal Style Transfer*, CVPR 2020. The first convolution is VGG-19's own, so relu1_1 is exact. A
narrow trunk follows, wider towards its end; where a layer can be asked for, a 1x1 convolution and a ReLU read VGG-19's
channels from it.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videonst.errors import InputError
from videonst.models import find_shipped
from videonst.perceptual.vgg import MEAN, STD

WEIGHTS = "compact-features.safetensors"
"""File name of the shipped weights, keys as in `Compact.state_dict()`. Those of all convolutions but the first are in 8
bits, with a scale for each output channel under the name of the weight and `SCALE`."""

SCALE = "_scale"

FIRST = 64
"""Channels of relu1_1."""

STAGES: tuple[tuple[int, int, tuple[str | None, ...]], ...] = (
    (2, 64, (None, "relu2_1")),
    (2, 96, (None, "relu3_1")),
    (2, 144, (None, None, "relu4_1", "relu4_2")),
    (1, 256, (None, None)),
    (2, 384, (None, "relu5_1")),
)
"""Of each stage of the trunk: what it divides the resolution by, its channels, and the layers that are read, if any,
after each of its convolutions. The first is 2x2 where the resolution is divided; all others are 3x3."""

VGG_CHANNELS = {"relu2_1": 128, "relu3_1": 256, "relu4_1": 512, "relu4_2": 512, "relu5_1": 512}


class Compact(nn.Module):
    """The network with random weights, to be trained; `open_compact` gives the trained one."""

    name = "compact"
    layers = ("relu1_1", *VGG_CHANNELS)

    def __init__(self) -> None:
        super().__init__()
        self.first = conv3x3(3, FIRST)
        self.trunk = nn.ModuleList()
        self.read = nn.ModuleDict()
        self.stages = STAGES
        before = FIRST
        for stride, channels, layers in STAGES:
            stage = nn.ModuleList([nn.Conv2d(before, channels, 2, 2) if stride == 2 else conv3x3(before, channels)])
            stage.extend(conv3x3(channels, channels) for _ in layers[1:])
            self.trunk.append(stage)
            self.read.update({name: nn.Conv2d(channels, VGG_CHANNELS[name], 1) for name in layers if name})
            before = channels
        self.mean = nn.Buffer(torch.tensor(MEAN).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Maps (B, 3, H, W), RGB in [0, 1], to {layer: (B, C, H / stride, W / stride)}, shapes as VGG-19's."""
        x = Relu.apply(self.first(self.normalise(image)))
        taps = {"relu1_1": x} if "relu1_1" in layers else {}
        for (_, _, names), convolutions in zip(self.stages, self.trunk.children(), strict=True):
            for name, convolution in zip(names, convolutions.children(), strict=True):
                if len(taps) == len(layers):
                    return taps
                x = Relu.apply(convolution(x))
                if name is not None and name in layers:
                    taps[name] = Relu.apply(self.read[name](x))
        return taps

    def normalise(self, image: Tensor) -> Tensor:
        """What the first convolution takes."""
        return ((image - self.mean) / self.std).to(self.mean.dtype).contiguous(memory_format=torch.channels_last)


def conv3x3(before: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(before, channels, 3, padding=1)


class Relu(torch.autograd.Function):
    """max(x, 0), with a gradient that `torch.compile` turns into quick code on a CPU.

    The gradient of `F.relu` keeps a mask of truth values, and the loop that writes it is not vectorised: it took a
    quarter of a compiled step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp(min=0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        masked: Tensor = gradient * y.sign()
        return masked


def pack(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is written of a `state_dict()`: 8 bits for the weights behind the first convolution, else half precision."""
    packed = {}
    for name, value in state.items():
        if value.ndim < 4 or not name.startswith(("trunk.", "read.")):
            packed[name] = value.half()
            continue
        scale = value.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        packed[name] = (value / scale.view(-1, 1, 1, 1)).round().to(torch.int8)
        packed[name + SCALE] = scale
    return {name: value.contiguous().cpu() for name, value in packed.items()}


def unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """The `state_dict()` that `pack` was given, but for rounding."""
    scales = {name.removesuffix(SCALE): value for name, value in packed.items() if name.endswith(SCALE)}
    return {
        name: value.float() * scales[name].view(-1, 1, 1, 1) if name in scales else value.float()
        for name, value in packed.items()
        if not name.endswith(SCALE)
    }


def open_compact(weights: Path | None = None) -> Compact:
    """The trained network, frozen.

    Args:
        weights: a `.safetensors` file of `tools/distil_features.py`; None takes the shipped one.

    Raises:
        InputError: the file is missing, unreadable or holds something else.
    """
    from safetensors.torch import load_file

    path = weights or find_shipped(WEIGHTS)
    network = Compact()
    try:
        network.load_state_dict(unpack(load_file(path)))
    except Exception as error:
        raise InputError(f"{path} does not hold the compact perceptual network: {error}") from error
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
