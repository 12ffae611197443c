"""The losses of style transfer. All are relative, so one set of weights serves every layer and every style.

Content and Gram style: Gatys, Ecker, Bethge: *Image Style Transfer Using Convolutional Neural Networks*, CVPR 2016.
Every function returns one value per picture of the batch, shape (B,), so that a batch may mix styles.
"""

from collections.abc import Mapping, Sequence
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


def style_statistics(features: Mapping[str, Tensor]) -> dict[str, Statistics]:
    """Gram matrix and channel means of each layer's features, {layer: (B, C, H, W)}, over the whole picture.

    (Leaving out a border, so that the zero padding of VGG is not seen, left a border without style: a visible frame.)
    """
    return {name: _statistics(x) for name, x in features.items()}


def _statistics(x: Tensor) -> Statistics:
    rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H W, C): a view or one copy in channels-last memory
    positions = rows.shape[1]
    # Products in the features' own precision accumulate in fp32 on CPU and GPU; scaled first against overflow.
    scaled = rows * positions**-0.5
    return Statistics((scaled.transpose(1, 2) @ scaled).float(), rows.float().mean(1))


def style_loss(result: Mapping[str, Statistics], target: Mapping[str, Statistics]) -> Tensor:
    """Mean over layers of |G - A|^2 / |A|^2 + 0.5 |m - a|^2 / |a|^2 (Gram matrices G, A; channel means m, a).

    Relative to the painting's own norm, so that every style and layer weighs the same.
    """
    terms = []
    for name, found in result.items():
        wanted = target[name]
        gram = (found.gram - wanted.gram).square().sum((1, 2)) / wanted.gram.square().sum((1, 2))
        mean = (found.mean - wanted.mean).square().sum(1) / wanted.mean.square().sum(1)
        terms.append(gram + MEAN_WEIGHT * mean)
    return torch.stack(terms).mean(0)


def content_loss(result: Tensor, photo: Tensor) -> Tensor:
    """|F - P|^2 / |P|^2 of one layer's features, (B, C, H, W) each."""
    photo = photo.float()
    return (result.float() - photo).square().sum((1, 2, 3)) / photo.square().sum((1, 2, 3))


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
