"""Growing a trained network into a wider tier (Net2Wider; Chen, Goodfellow, Shlens: *Net2Net*, ICLR 2016)."""

import torch
from torch import Tensor, nn

from videonst.errors import InputError
from videonst.network.model import PaddedConv, StyleNetwork


def widen(source: StyleNetwork, tier: str, *, noise: float = 0.0, seed: int = 0) -> StyleNetwork:
    """A network of a wider tier that paints what `source` paints.

    Every channel is repeated, and the weights that read it are divided by the number of copies; kernels grow by zeros
    at their rim. Copies have the same instance statistics, so the pictures stay the same.

    Args:
        source: trained network.
        tier: a tier with the same convolutions, channel counts that are multiples, and kernels at least as large.
        noise: standard deviation of the noise on the copied weights, relative to each layer's own. Copies without
            noise get the same gradient and stay copies for ever.
        seed: of the noise.

    Raises:
        InputError: the tiers do not correspond.
    """
    target = StyleNetwork(tier, len(source.bank) - 1)
    generator = torch.Generator().manual_seed(seed)
    pairs = list(zip(_convolutions(source), _convolutions(target), strict=False))
    if len(list(_convolutions(source))) != len(list(_convolutions(target))) or not all(_grows(a, b) for a, b in pairs):
        raise InputError(f"a network of tier {source.tier} cannot grow into tier {tier}; their layouts differ")
    with torch.no_grad():
        for old, new in pairs:
            new.weight.copy_(_grown(old.weight, new.weight.shape))
            new.weight.add_(noise * new.weight.std() * torch.randn(new.weight.shape, generator=generator))
        copies = zip(source.norm_channels, target.norm_channels, strict=True)
        pieces = source.bank.split([c for width in source.norm_channels for c in (width, width)], dim=1)
        factors = [new // old for old, new in copies for _ in range(2)]
        target.bank.copy_(torch.cat([p.repeat(1, k) for p, k in zip(pieces, factors, strict=True)], dim=1))
    return target


def _convolutions(network: StyleNetwork) -> list[PaddedConv]:
    return [module for module in network.modules() if isinstance(module, PaddedConv)]


def _grows(old: nn.Conv2d, new: nn.Conv2d) -> bool:
    whole = all(b % a == 0 for a, b in zip(old.weight.shape[:2], new.weight.shape[:2], strict=True))
    rim = new.kernel_size[0] - old.kernel_size[0]
    return whole and old.stride == new.stride and rim >= 0 and rim % 2 == 0


def _grown(weight: Tensor, shape: torch.Size) -> Tensor:
    copies_out, copies_in = shape[0] // weight.shape[0], shape[1] // weight.shape[1]
    rim = (shape[2] - weight.shape[2]) // 2
    weight = weight.repeat(copies_out, copies_in, 1, 1) / copies_in
    return nn.functional.pad(weight, (rim, rim, rim, rim))
