"""The losses of style transfer. All are relative, so one set of weights serves every layer and every style.

Content and Gram style: Gatys, Ecker, Bethge: *Image Style Transfer Using Convolutional Neural Networks*, CVPR 2016.
Regions: Gatys et al.: *Controlling Perceptual Factors in Neural Style Transfer*, CVPR 2017. Laplacian: Li et al.:
*Laplacian-Steered Neural Style Transfer*, ACM Multimedia 2017. Every function returns one value per picture of the
batch, shape (B,), so that a batch may mix styles.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN_WEIGHT = 0.5
"""Share of the channel-mean term beside the Gram term."""


@dataclass(frozen=True)
class Statistics:
    """Style of one layer: Gram matrices (B, C, C) and channel means (B, C), both divided by the number of positions."""

    gram: Tensor
    mean: Tensor


def style_statistics(features: Mapping[str, Tensor], region: Tensor | None = None) -> dict[str, Statistics]:
    """Gram matrix and channel means of each layer's features, {layer: (B, C, H, W)}.

    (Leaving out a border, so that the zero padding of VGG is not seen, left a border without style: a visible frame.)

    Args:
        features: by layer.
        region: (B, 1, H, W) of the picture, 0 to 1: how much each position counts; None takes the whole picture.
    """
    return {name: _statistics(x, region) for name, x in features.items()}


def _statistics(x: Tensor, region: Tensor | None) -> Statistics:
    rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H W, C): a view or one copy in channels-last memory
    if region is None:
        # Products in the features' own precision accumulate in fp32 on CPU and GPU; scaled first against overflow.
        scaled = rows * rows.shape[1] ** -0.5
        mean = rows.float().mean(1)
    else:
        share = F.adaptive_avg_pool2d(region, (x.shape[2], x.shape[3])).flatten(1)[..., None]
        share = share / share.sum(1, keepdim=True).clamp(min=LEAST_REGION)
        scaled = rows * share.sqrt().to(rows.dtype)
        mean = (rows.float() * share).sum(1)
    return Statistics((scaled.transpose(1, 2) @ scaled).float(), mean)


LEAST_REGION = 1e-6
"""Positions: a region that has vanished at a deep layer divides by no less."""


def blend(statistics: Sequence[Mapping[str, Statistics]], shares: Sequence[float]) -> dict[str, Statistics]:
    """The style between several: raw moments, such as these, may be averaged; a painting of both has that average."""
    return {
        name: Statistics(
            sum((s[name].gram * share for s, share in zip(statistics, shares, strict=True)), torch.zeros(())),
            sum((s[name].mean * share for s, share in zip(statistics, shares, strict=True)), torch.zeros(())),
        )
        for name in statistics[0]
    }


Distance = Callable[[Statistics, Statistics], Tensor]
"""How far the statistics of a result, the first, are from those of a painting, the second: (B,)."""


def gram_distance(found: Statistics, wanted: Statistics) -> Tensor:
    """|G - A|^2 / |A|^2 of the Gram matrices: the style loss of Gatys et al., of the layer's own scale."""
    return (found.gram - wanted.gram).square().sum((1, 2)) / wanted.gram.square().sum((1, 2))


def mean_distance(found: Statistics, wanted: Statistics) -> Tensor:
    """|m - a|^2 / |a|^2 of the channel means."""
    return (found.mean - wanted.mean).square().sum(1) / wanted.mean.square().sum(1)


def gram_and_mean_distance(found: Statistics, wanted: Statistics) -> Tensor:
    """|G - A|^2 / |A|^2 + 0.5 |m - a|^2 / |a|^2: what the networks are trained with."""
    return gram_distance(found, wanted) + MEAN_WEIGHT * mean_distance(found, wanted)


def covariance_distance(found: Statistics, wanted: Statistics) -> Tensor:
    """|C - K|^2 / |K|^2 of the covariances, plus `mean_distance`: a Gram matrix mixes the two, so that more contrast
    may stand in for another mean (Heitz et al., CVPR 2021)."""
    target = covariance(wanted)
    spread = (covariance(found) - target).square().sum((1, 2)) / target.square().sum((1, 2))
    return spread + mean_distance(found, wanted)


def wasserstein_distance(found: Statistics, wanted: Statistics) -> Tensor:
    """Squared 2-Wasserstein distance of the Gaussians with these moments, relative to the painting's second moment:

        |m - a|^2 + tr(C + K - 2 (K^1/2 C K^1/2)^1/2)  over  tr(A)

    The style loss of Crowson's `style-transfer-pytorch`. A little is added to both diagonals, so that the square root
    has a gradient everywhere and the distance of equal statistics stays 0. Only eigenvalues are differentiated, which
    is stable where they meet.
    """
    theirs = covariance(wanted)
    values, vectors = torch.linalg.eigh(theirs)
    little = LEAST_EIGENVALUE * values[:, -1:].clamp(min=LEAST_EIGENVALUE)
    root = (vectors * (values.clamp(min=0) + little).sqrt()[:, None]) @ vectors.mT
    ours = covariance(found) + torch.diag_embed(little.expand_as(values))
    inner = root @ ours @ root
    common = torch.linalg.eigvalsh((inner + inner.mT) / 2).clamp(min=(little**2).min().item())
    total = _trace(ours) + (values.clamp(min=0) + little).sum(1)
    apart = (found.mean - wanted.mean).square().sum(1) + total - 2 * common.sqrt().sum(1)
    distance: Tensor = apart / _trace(wanted.gram)
    return distance


LEAST_EIGENVALUE = 1e-4
"""Of the largest one: what is added, below which the gradient of the square root would be noise."""

DISTANCES: Mapping[str, Distance] = {
    "gram": gram_distance,
    "gram+mean": gram_and_mean_distance,
    "covariance": covariance_distance,
    "wasserstein": wasserstein_distance,
}


def covariance(statistics: Statistics) -> Tensor:
    """(B, C, C): the Gram matrix about the mean."""
    return statistics.gram - statistics.mean[:, :, None] * statistics.mean[:, None]


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def style_loss(
    result: Mapping[str, Statistics],
    target: Mapping[str, Statistics],
    distance: Distance = gram_and_mean_distance,
) -> Tensor:
    """Mean of a distance over layers. Relative to the painting's own norm, so that every style and layer weighs the
    same."""
    return torch.stack([distance(found, target[name]) for name, found in result.items()]).mean(0)


def content_loss(result: Tensor, photo: Tensor) -> Tensor:
    """|F - P|^2 / |P|^2 of one layer's features, (B, C, H, W) each."""
    photo = photo.float()
    return (result.float() - photo).square().sum((1, 2, 3)) / photo.square().sum((1, 2, 3))


def laplacian_loss(image: Tensor, photo: Tensor, side: int) -> Tensor:
    """Mean squared difference of the Laplacians of two pictures, (B, 3, H, W) in [0, 1], averaged over squares of
    `side` pixels first: keeps contours and small detail where they are (Li et al. 2017 take 4 and 16)."""
    return (_laplacian(image, side) - _laplacian(photo, side)).square().mean((1, 2, 3))


def _laplacian(image: Tensor, side: int) -> Tensor:
    """The five-point Laplacian of (B, C, H, W), summed over channels, without the border."""
    x = F.avg_pool2d(image, side, ceil_mode=True)
    middle = x[:, :, 1:-1, 1:-1]
    around = x[:, :, :-2, 1:-1] + x[:, :, 2:, 1:-1] + x[:, :, 1:-1, :-2] + x[:, :, 1:-1, 2:]
    return (4 * middle - around).sum(1, keepdim=True)


def total_variation_loss(image: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of (B, 3, H, W) in [0, 1], both directions added."""
    rows = (image[:, :, 1:] - image[:, :, :-1]).square().mean((1, 2, 3))
    columns = (image[:, :, :, 1:] - image[:, :, :, :-1]).square().mean((1, 2, 3))
    return rows + columns


def grid_loss(image: Tensor) -> Tensor:
    """Energy of the patterns that upsampling leaves in (B, 3, H, W): checkers and stripes of period 2 and 4 pixels.

    The phases of the pixel lattice are averaged over blocks of 8x8 pixels (period 2) and 32x32 (period 4), and the
    squared spread of their means is returned, summed over both periods. Detail and edges average out; a pattern of
    period 2 and amplitude a that holds over the blocks gives 2 a².
    """
    return _phase_spread(image, 2, 4) + _phase_spread(image, 4, 8)


def _phase_spread(image: Tensor, period: int, repeats: int) -> Tensor:
    means = F.avg_pool2d(F.pixel_unshuffle(image, period), repeats)  # (B, colours x phases, blocks, blocks)
    means = means.reshape(len(image), image.shape[1], period**2, *means.shape[2:])
    return (means - means.mean(2, keepdim=True)).square().mean((1, 2, 3, 4))


def pick(statistics: Sequence[Mapping[str, Statistics]], index: Sequence[int]) -> dict[str, Statistics]:
    """Batches the statistics of single pictures: those at `index`, in that order."""
    return {
        name: Statistics(
            torch.cat([statistics[i][name].gram for i in index]), torch.cat([statistics[i][name].mean for i in index])
        )
        for name in statistics[0]
    }
