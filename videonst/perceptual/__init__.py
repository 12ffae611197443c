"""Perceptual networks (VGG-19, or the compact one that ships) and the losses built on them (needs torch)."""

from videonst.perceptual.features import FEATURES, Features, open_features
from videonst.perceptual.losses import (
    content_loss,
    grid_loss,
    style_loss,
    style_statistics,
    total_variation_loss,
)
from videonst.perceptual.vgg import Vgg19

__all__ = [
    "FEATURES",
    "Features",
    "Vgg19",
    "content_loss",
    "grid_loss",
    "open_features",
    "style_loss",
    "style_statistics",
    "total_variation_loss",
]
