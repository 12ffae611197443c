"""VGG-19 features and the losses built on them (needs torch)."""

from videonst.perceptual.losses import (
    content_loss,
    grid_loss,
    style_loss,
    style_statistics,
    total_variation_loss,
)
from videonst.perceptual.vgg import Vgg19

__all__ = ["Vgg19", "content_loss", "grid_loss", "style_loss", "style_statistics", "total_variation_loss"]
