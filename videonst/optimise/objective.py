"""The loss of one picture: content, style, smoothness, detail, and steadiness, weighted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from videonst.optimise.presets import CONTENT_LAYER, STYLE_LAYERS, Preset
from videonst.perceptual.losses import (
    DISTANCES,
    Statistics,
    content_loss,
    laplacian_loss,
    style_loss,
    style_statistics,
    total_variation_loss,
)

Features = Callable[[Tensor, Sequence[str]], dict[str, Tensor]]
"""A perceptual network: (B, 3, H, W) RGB in [0, 1] and the names of layers to their activations."""

LAPLACIAN_SIDES = (4, 16)
"""Pixels of the squares that are averaged before the Laplacian; Li et al. 2017."""


@dataclass(frozen=True)
class Losses:
    """Each part before its weight, and their weighted sum."""

    total: float
    content: float
    style: float
    temporal: float = 0.0


@dataclass(frozen=True)
class Region:
    """A part of the picture and the style it is to have.

    Attributes:
        style: statistics by layer.
        mask: (1, 1, H, W), 0 to 1; None for the whole picture.
        share: of the picture's area.
    """

    style: Mapping[str, Statistics]
    mask: Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Held:
    """What a frame should look like where the frames before have shown it.

    Attributes:
        picture: (1, 3, H, W), the earlier result at the place of now.
        weight: (1, 1, H, W), 0 (hidden then) to 1.
    """

    picture: Tensor
    weight: Tensor


class Objective:
    """Losses of results for one photograph.

    Args:
        features: the perceptual network.
        layers: that it can give. Of the content layer relu4_2 the nearest one is taken, of the style layers those that
            there are.
        preset: its weights.
        photo: (1, 3, H, W), RGB in [0, 1].
        regions: what style is wanted where.
        held: results of other frames.
        content: activations of the photograph where they are known already.
    """

    def __init__(
        self,
        features: Features,
        layers: Sequence[str],
        preset: Preset,
        photo: Tensor,
        regions: Sequence[Region],
        held: Sequence[Held] = (),
    ) -> None:
        self._features, self._preset, self._photo = features, preset, photo
        self._regions, self._held = regions, held
        self._style_layers, self._content_layer = pick_layers(layers)
        self._layers = (*self._style_layers, self._content_layer)
        self._distance = DISTANCES[preset.distance]
        with torch.no_grad():
            self._content = features(photo, (self._content_layer,))[self._content_layer]

    def __call__(self, image: Tensor) -> tuple[Tensor, Losses]:
        """The weighted sum, to be differentiated, and its parts, for (1, 3, H, W)."""
        preset = self._preset
        found = self._features(image, self._layers)
        content = content_loss(found[self._content_layer], self._content)[0]
        of_style = {name: found[name] for name in self._style_layers}
        style = torch.stack(
            [
                region.share * style_loss(style_statistics(of_style, region.mask), region.style, self._distance)[0]
                for region in self._regions
            ]
        ).sum()
        total = preset.content_weight * content + preset.style_weight * style
        if preset.range_weight:
            total = total + preset.range_weight * (image - image.clamp(0, 1)).square().mean()
        if preset.tv_weight:
            total = total + preset.tv_weight * total_variation_loss(image)[0]
        if preset.laplacian_weight:
            sides = [side for side in LAPLACIAN_SIDES if min(image.shape[2:]) >= 3 * side]
            detail = [laplacian_loss(image, self._photo, side)[0] for side in sides]
            total = total + preset.laplacian_weight * torch.stack(detail).sum() if detail else total
        temporal = torch.zeros((), device=image.device)
        for held in self._held:
            temporal = temporal + (held.weight * (image - held.picture).square()).mean()
        total = total + preset.temporal_weight * temporal
        return total, Losses(*(float(x.detach()) for x in (total, content, style, temporal)))


def pick_layers(layers: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The style layers, and the content layer, of those that a network can give."""
    style = tuple(name for name in STYLE_LAYERS if name in layers)
    content = CONTENT_LAYER if CONTENT_LAYER in layers else style[-1] if "relu4_1" not in layers else "relu4_1"
    return style, content
