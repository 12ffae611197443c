"""Multi-style transformation network with conditional instance normalisation.

Dumoulin, Shlens, Kudlur: *A Learned Representation for Artistic Style*, ICLR 2017. One set of convolutions serves
every style; a style is a row of γ and β, one pair per channel of every normalisation layer, the three output
channels included. A mixture of styles is a weighted sum of rows, taken inside the norm.

Layout differs from the paper's for speed only: no full-resolution convolution. The stem is one strided convolution
(identical to space-to-depth followed by a convolution), the head a convolution followed by depth-to-space.
"""

from collections.abc import Callable
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

    @property
    def statistics_size(self) -> int:
        """Numbers in the statistics of all normalisation layers: mean and variance of every channel."""
        return 2 * sum(self._statistics_channels())

    def _statistics_channels(self) -> list[int]:
        return [*self.norm_channels[:-1], self.norm_channels[-1] * self.shuffle**2]

    def hold(self, statistics: Tensor, hold: Tensor) -> "HeldStatistics":
        """A normalisation for `forward` that holds statistics of other frames.

        Args:
            statistics: (1, statistics_size).
            hold: (1,), their weight, 0 to 1.
        """
        return HeldStatistics(statistics, hold, self._statistics_channels())

    def hold_entirely(self, statistics: Tensor, weights: Tensor) -> "EntirelyHeldStatistics":
        """The same as `hold` with 1, for a network that paints with these `weights` and needs no statistics of the
        frame: less to compute. All (1, …) as there and in `forward`."""
        phases = self.shuffle**2
        rows = [list(of) for of in zip(*self._rows(weights @ self.bank), strict=True)]
        for of in rows:
            of[-1] = of[-1].repeat_interleave(phases, 1)
        gamma, beta = (torch.cat(of, dim=1) for of in rows)
        channels = self._statistics_channels()
        pieces = statistics.split([c for width in channels for c in (width, width)], dim=1)
        mean, variance = (torch.cat(pieces[first::2], dim=1) for first in (0, 1))
        scale = gamma * torch.rsqrt(variance + EPSILON)
        return EntirelyHeldStatistics(scale, beta - mean * scale, channels, self.stem.weight.dtype)

    def forward(self, frame: Tensor, weights: Tensor, norm: "Normalise | None" = None) -> Tensor:
        """Repaints a batch.

        Args:
            frame: (B, 3, H, W), RGB in [0, 1], H and W at least 16.
            weights: (B, styles + 1), summing to 1 for a plain mixture; slot 0 is the photo.
            norm: one made by `hold`; None takes each frame's own statistics.

        Returns:
            (B, 3, H, W) in [0, 1]. With all weight on slot 0 it is `frame`.
        """
        painted = self.paint(frame, weights, norm)
        keep = weights[:, PHOTO, None, None, None].clamp(min=0).square().to(frame.dtype)
        return keep * frame + (1 - keep) * painted

    def paint(self, frame: Tensor, weights: Tensor, norm: "Normalise | None" = None) -> Tensor:
        """The painted branch alone, before the photo slot is faded in. Same shapes as `forward`."""
        return self.paint_rows(frame, weights @ self.bank, norm)

    def paint_rows(self, frame: Tensor, rows: Tensor, norm: "Normalise | None" = None) -> Tensor:
        """As `paint`, with a γ and β for each frame that the bank need not hold: (B, 2 x channels)."""
        normalised = norm or normalise
        height, width = frame.shape[2:]
        norms = iter(self._rows(rows[:, :, None, None]))
        # Extend by a fixed number of pixels, then cut to the multiple: static pads keep the exported graph simple.
        x = F.pad(frame, (0, MULTIPLE - 1, 0, MULTIPLE - 1), mode="reflect")
        x = x[:, :, : (height + MULTIPLE - 1) // MULTIPLE * MULTIPLE, : (width + MULTIPLE - 1) // MULTIPLE * MULTIPLE]
        x = F.relu(normalised(self.stem(x), *next(norms)))
        for conv in self.down:
            x = F.relu(normalised(conv(x), *next(norms)))
        for first, second in zip(self.body[::2], self.body[1::2], strict=True):
            y = F.relu(normalised(first(x), *next(norms)))
            x = x + normalised(second(y), *next(norms))
        for conv in self.up:
            x = F.relu(normalised(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")), *next(norms)))
        # Each sub-pixel phase of the output is normalised on its own, with the γ and β of its colour: all phases get
        # the same mean and contrast, so depth-to-space cannot leave a grid.
        phases = self.shuffle**2
        gamma, beta = (row.repeat_interleave(phases, 1) for row in next(norms))
        x = F.pixel_shuffle(normalised(self.head(x), gamma, beta), self.shuffle)
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


Normalise = Callable[[Tensor, Tensor, Tensor], Tensor]
"""As `normalise`: x, γ, β."""


def normalise(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Conditional instance normalisation, equation 5 of Dumoulin et al. Statistics, γ and β in fp32.

    Args:
        x: (B, C, H, W).
        gamma, beta: (B, C, 1, 1), already mixed over styles.
    """
    y = F.instance_norm(x.float(), eps=EPSILON) * gamma + beta
    return y.to(x.dtype)


EPSILON = 1e-5
"""Added to the variance; PyTorch's default."""


class HeldStatistics:
    """Conditional instance normalisation of a frame with statistics held from the frames before it, so that the whole
    picture does not pulse when something enters it. Mean and variance in use are `own + hold * (held - own)`.

    Wang et al. 2020 (ReReVST, global feature sharing) hold those of a sequence; here they may follow. With hold 0 the
    result is that of `normalise` but for rounding. Mean and mean square are plain reductions and the rest is one
    multiplication and addition a value, which ONNX Runtime computes as fast as its own instance normalisation.

    Args:
        statistics: (1, 2 x channels): for each normalisation in order the means, then the variances.
        hold: (1,).
        channels: of each normalisation.
    """

    def __init__(self, statistics: Tensor, hold: Tensor, channels: list[int]) -> None:
        pieces = statistics[:, :, None, None].split([c for width in channels for c in (width, width)], dim=1)
        self._held = iter(zip(pieces[::2], pieces[1::2], strict=True))
        self._hold = hold
        self._used: list[Tensor] = []

    def __call__(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        wide = x.float()
        mean = wide.mean((2, 3), keepdim=True)
        square = (wide * wide).mean((2, 3), keepdim=True)
        variance = (square - mean * mean).clamp(min=0)
        held_mean, held_variance = next(self._held)
        mean = mean + self._hold * (held_mean - mean)
        variance = variance + self._hold * (held_variance - variance)
        self._used += [mean, variance]
        scale = gamma * torch.rsqrt(variance + EPSILON)
        y: Tensor = wide * scale + (beta - mean * scale)
        return y.to(x.dtype)

    def used(self) -> Tensor:
        """What this frame was normalised with, as `statistics` of the next; after the network has run."""
        return torch.cat(self._used, dim=1)[:, :, 0, 0]


class EntirelyHeldStatistics:
    """What `HeldStatistics` with hold 1 does: a factor and a summand for each channel, made for all layers at once.

    Args:
        scale, shift: (1, channels) of all normalisations.
        channels: of each.
        dtype: of the convolutions, in which it is computed.
    """

    def __init__(self, scale: Tensor, shift: Tensor, channels: list[int], dtype: torch.dtype) -> None:
        parts = (of.to(dtype)[:, :, None, None].split(channels, dim=1) for of in (scale, shift))
        self._affine = iter(zip(*parts, strict=True))

    def __call__(self, x: Tensor, _gamma: Tensor, _beta: Tensor) -> Tensor:
        scale, shift = next(self._affine)
        y: Tensor = x * scale + shift
        return y
