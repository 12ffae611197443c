"""Losses that make a network paint the same thing the same way in the next frame.

The result of the first frame is moved along the known motion and compared with the result of the second, as in Huang
et al.: *Real-Time Neural Style Transfer for Videos*, CVPR 2017; changes of brightness are let through and the features
at the bottleneck are compared too, as in Gao et al.: *ReCoNet*, ACCV 2018. Every function of two results returns one
value per picture of the batch, shape (B,).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue in the brightness, ITU-R BT.709."""

BRIGHTNESS_RELAXATION = 0.5
"""Share of the photograph's change of brightness that the result should follow: styles have a smaller range."""

TEXTURE_RADIUS = 4
"""Pixels: what differs from the mean of the square of this radius counts as texture."""

LEAST_TEXTURE = 1e-4
"""Added to the energy of the texture, squared level of a [0, 1] scale: a flat result divides by no less."""

LEAST_FEATURES = 1e-6
"""Added to the energy of the features, for the same reason."""


def luma(image: Tensor) -> Tensor:
    """Brightness (B, 1, H, W) of (B, 3, H, W) RGB."""
    weights = torch.tensor(LUMA, dtype=image.dtype, device=image.device)
    return (image * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Samples `image` at the position of each pixel plus its flow, bicubic; beyond the border it is reflected.

    Bicubic, because every loss of sharpness here would be asked of the network.

    Args:
        image: (B, C, H, W).
        flow: (B, 2, H, W), x then y, pixels: from a pixel of the result to where it was in `image`.

    Returns:
        (B, C, H, W) in the type of `image`.
    """
    height, width = image.shape[2:]
    ys = torch.arange(height, device=flow.device, dtype=flow.dtype).view(1, -1, 1)
    xs = torch.arange(width, device=flow.device, dtype=flow.dtype).view(1, 1, -1)
    grid = torch.stack(((xs + flow[:, 0]) * 2 / (width - 1) - 1, (ys + flow[:, 1]) * 2 / (height - 1) - 1), -1)
    moved = F.grid_sample(image.to(flow.dtype), grid, mode="bicubic", padding_mode="reflection", align_corners=True)
    return moved.to(image.dtype)


def warping_error(second: Tensor, first: Tensor, flow: Tensor, valid: Tensor) -> Tensor:
    """Root of the masked mean squared difference between `second` and `first` moved along the flow.

    The measure of Huang et al. and ReCoNet, for (B, 3, H, W) in [0, 1]; `valid` is (B, 1, H, W), 1 where the motion
    holds.
    """
    return _masked_mean((second - warp(first, flow)).square(), valid).sqrt()


def temporal_loss(second: Tensor, first: Tensor, flow: Tensor, valid: Tensor, brightening: Tensor) -> Tensor:
    """Squared difference between a result and its predecessor moved along the flow, relative to their texture.

    Relative, so that fading the strokes gains nothing: without this the loss would rather have less texture than
    texture that moves with the picture.

    Args:
        second, first: results, (B, 3, H, W) in [0, 1].
        flow: (B, 2, H, W), as for `warp`.
        valid: (B, 1, H, W), 1 where the motion holds.
        brightening: (B, 1, H, W), change of the photograph's brightness along the motion.

    Returns:
        (B,): 0 where nothing boils, 1 where the textures are independent of each other.
    """
    moved = warp(first, flow)
    change = (second - moved - BRIGHTNESS_RELAXATION * brightening).square()
    texture = _texture(second).square() + _texture(moved).square()
    return _masked_mean(change, valid) / (_masked_mean(texture, valid) + LEAST_TEXTURE)


def temporal_feature_loss(second: Tensor, first: Tensor, flow: Tensor, valid: Tensor) -> Tensor:
    """The same for the features at the bottleneck, relative to their own variance.

    Args:
        second, first: (B, C, H / n, W / n).
        flow, valid: at the resolution of the pictures, as for `temporal_loss`.
    """
    factor = flow.shape[3] // second.shape[3]
    small = F.avg_pool2d(flow, factor) / factor
    whole = (F.avg_pool2d(valid, factor) == 1).to(flow.dtype)
    moved = warp(first.float(), small)
    second = second.float()
    variance = _centred(second).square() + _centred(moved).square()
    return _masked_mean((second - moved).square(), whole) / (_masked_mean(variance, whole) + LEAST_FEATURES)


def _texture(image: Tensor) -> Tensor:
    side = 2 * TEXTURE_RADIUS + 1
    return image - F.avg_pool2d(image, side, 1, TEXTURE_RADIUS, count_include_pad=False)


def _centred(features: Tensor) -> Tensor:
    return features - features.mean((2, 3), keepdim=True)


def _masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of (B, C, H, W) over channels and the pixels where `valid`, (B, 1, H, W), is 1; 0 where none is."""
    return (values * valid).sum((1, 2, 3)) / (values.shape[1] * valid.sum((1, 2, 3))).clamp(min=1)
