"""Multi-style transformation network with conditional instance normalisation.

Dumoulin, Shlens, Kudlur: *A Learned Representation for Artistic Style*, ICLR 2017. One set of convolutions serves
every style; a style is a row of γ and β, one pair per channel of every normalisation layer, the three output
channels included. A mixture of styles is a weighted sum of rows, taken inside the norm.

Layout differs from the paper's for speed only: no full-resolution convolution. The stem is one strided convolution
(identical to space-to-depth followed by a convolution), the head a convolution followed by depth-to-space.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PHOTO = 0
"""Slot of the untouched photograph; strength interpolates between it and the styles."""

MULTIPLE = 4
"""Frames are extended by reflection to this multiple inside the network, and cut back."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Shape of one tier. Strides of stem and downs multiply to 4; so do ups and shuffle.

    Attributes:
        stem: kernel, stride and channels of the first convolution.
        down: channels of the 3x3 stride-2 convolutions that follow.
        blocks: residual blocks at a quarter of the resolution.
        up: channels of the nearest-neighbour x2 + 3x3 convolutions.
        head: kernel of the last convolution and factor of the depth-to-space that follows it.
    """

    stem: tuple[int, int, int]
    down: tuple[int, ...]
    blocks: int
    up: tuple[int, ...]
    head: tuple[int, int]


TIERS: dict[str, Layout] = {
    "full": Layout(stem=(10, 2, 64), down=(128,), blocks=5, up=(64,), head=(5, 2)),
    "fast": Layout(stem=(6, 2, 32), down=(64,), blocks=5, up=(32,), head=(3, 2)),
    "tiny": Layout(stem=(12, 4, 32), down=(), blocks=4, up=(16,), head=(3, 2)),
    # Dumoulin et al. 2017, table of the appendix; for comparison only, never shipped.
    "reference": Layout(stem=(9, 1, 32), down=(64, 128), blocks=5, up=(64, 32), head=(9, 1)),
}


class StyleNetwork(nn.Module):
    """Repaints frames in a mixture of styles.

    Args:
        tier: a name in `TIERS`.
        styles: number of styles without the photo slot; the bank has one row more, slot 0 = photo.

    The bank is one matrix (styles + 1, 2 x channels): for each normalisation layer in order its γ, then its β.
    """

    def __init__(self, tier: str, styles: int) -> None:
        super().__init__()
        layout = TIERS[tier]
        self.tier = tier
        self.norm_channels: list[int] = []
        kernel, stride, channels = layout.stem
        self.stem = self._conv(3, channels, kernel, stride)
        self.down = nn.ModuleList()
        for width in layout.down:
            self.down.append(self._conv(channels, width, 3, 2))
            channels = width
        self.body = nn.ModuleList(self._conv(channels, channels, 3) for _ in range(2 * layout.blocks))
        self.up = nn.ModuleList()
        for width in layout.up:
            self.up.append(self._conv(channels, width, 3))
            channels = width
        kernel, self.shuffle = layout.head
        self.head = PaddedConv(channels, 3 * self.shuffle**2, kernel)
        with torch.no_grad():  # equal sub-filters: no period-2 grid at the start (Aitken et al. 2017)
            self.head.weight.copy_(self.head.weight[:: self.shuffle**2].repeat_interleave(self.shuffle**2, 0))
        self.norm_channels.append(3)
        width = sum(self.norm_channels)
        self.bank = nn.Parameter(torch.empty(styles + 1, 2 * width))
        with torch.no_grad():
            for gamma, beta in self._rows(self.bank):
                gamma.fill_(1.0)
                beta.zero_()

    def _conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> "PaddedConv":
        self.norm_channels.append(outputs)
        return PaddedConv(inputs, outputs, kernel, stride)

    def _rows(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Splits (B, 2 x channels, …) into one (γ, β) pair a layer, each (B, channels, …)."""
        pieces = rows.split([c for width in self.norm_channels for c in (width, width)], dim=1)
        return list(zip(pieces[::2], pieces[1::2], strict=True))

    def forward(self, frame: Tensor, weights: Tensor) -> Tensor:
        """Repaints a batch.

        Args:
            frame: (B, 3, H, W), RGB in [0, 1], H and W at least 16.
            weights: (B, styles + 1), summing to 1 for a plain mixture; slot 0 is the photo.

        Returns:
            (B, 3, H, W) in [0, 1]. With all weight on slot 0 it is `frame`.
        """
        painted = self.paint(frame, weights)
        keep = weights[:, PHOTO, None, None, None].clamp(min=0).square().to(frame.dtype)
        return keep * frame + (1 - keep) * painted

    def paint(self, frame: Tensor, weights: Tensor) -> Tensor:
        """The painted branch alone, before the photo slot is faded in. Same shapes as `forward`."""
        height, width = frame.shape[2:]
        norms = iter(self._rows((weights @ self.bank)[:, :, None, None].to(frame.dtype)))
        # Extend by a fixed number of pixels, then cut to the multiple: static pads keep the exported graph simple.
        x = F.pad(frame, (0, MULTIPLE - 1, 0, MULTIPLE - 1), mode="reflect")
        x = x[:, :, : (height + MULTIPLE - 1) // MULTIPLE * MULTIPLE, : (width + MULTIPLE - 1) // MULTIPLE * MULTIPLE]
        x = F.relu(normalise(self.stem(x), *next(norms)))
        for conv in self.down:
            x = F.relu(normalise(conv(x), *next(norms)))
        for first, second in zip(self.body[::2], self.body[1::2], strict=True):
            y = F.relu(normalise(first(x), *next(norms)))
            x = x + normalise(second(y), *next(norms))
        for conv in self.up:
            x = F.relu(normalise(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")), *next(norms)))
        # Each sub-pixel phase of the output is normalised on its own, with the γ and β of its colour: all phases get
        # the same mean and contrast, so depth-to-space cannot leave a grid.
        phases = self.shuffle**2
        gamma, beta = (row.repeat_interleave(phases, 1) for row in next(norms))
        x = F.pixel_shuffle(normalise(self.head(x), gamma, beta), self.shuffle)
        x = torch.sigmoid(x)
        return x[:, :, :height, :width]


class PaddedConv(nn.Conv2d):
    """Convolution with reflected borders and no bias (the normalisation that follows would remove it)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=False)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        before, after = (kernel - stride + 1) // 2, (kernel - stride) // 2
        self.border = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.border, mode="reflect"))


def normalise(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Conditional instance normalisation, equation 5 of Dumoulin et al. Statistics in fp32, the rest in γ's type.

    Args:
        x: (B, C, H, W).
        gamma, beta: (B, C, 1, 1), already mixed over styles.
    """
    y = F.instance_norm(x.float(), eps=1e-5).to(gamma.dtype) * gamma + beta
    return y.to(x.dtype)
