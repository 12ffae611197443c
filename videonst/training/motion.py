"""Synthetic motion: a second frame for a single photograph, with the exact flow between the two.

After the compound regularisation of Wang et al.: *Consistent Video Style Transfer via Relaxation and Regularization*,
TIP 2020, which needs no clips and no flow network. Whole-pixel shifts are the largest part: a network whose strides
multiply to 4 repeats itself only under shifts by multiples of 4, and most of what boils is this.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from videonst.perceptual.temporal import luma, warp

KINDS = ("whole", "fraction", "deform", "still")
SHARES = (0.4, 0.2, 0.3, 0.1)
"""How often a photograph is shifted by whole pixels, by fractions too, deformed as well, or left in place."""

SHIFT = 12.0
"""Largest shift in each direction, pixels."""
ZOOM = 0.04
"""Largest relative enlargement or reduction."""
ROTATION = np.deg2rad(2.0)
"""Largest rotation, radians."""
FIELD_CELLS = 4
"""The smooth field of displacements is drawn on a grid of this many cells in each direction."""
FIELD = 2.0
"""Standard deviation of the smooth field at the points of its grid, pixels."""

EXPOSURE_SHARE = 0.5
"""How often the exposure changes."""
GAIN, OFFSET = 0.05, 0.03
"""Largest relative change of exposure, and largest change of black level on a [0, 1] scale."""
NOISE = 4 / 255
"""Largest standard deviation of the sensor noise, on a [0, 1] scale; each photograph draws its own."""
COMPRESSION_SHARE = 0.3
"""How often the second frame is compressed."""
COMPRESSION = (0.4, 1.6)
"""Least and largest quantisation step of the mean of a block, 8-bit levels: JPEG qualities of about 90 to 60."""
BLOCK = 8
"""Side of the blocks of the compression, pixels."""
BORDER = 2
"""Pixels next to what the first frame does not show, where bicubic interpolation reads beyond it."""


@dataclass(frozen=True)
class Motion:
    """A second frame and how it came from the first.

    Attributes:
        second: (B, 3, H, W), RGB in [0, 1].
        flow: (B, 2, H, W), x then y, pixels: from a pixel of `second` to where it was in the first frame.
        valid: (B, 1, H, W), 1 where that lies inside the first frame, else 0.
        brightening: (B, 1, H, W), change of luma along the motion, without noise and compression.
    """

    second: Tensor
    flow: Tensor
    valid: Tensor
    brightening: Tensor


@torch.no_grad()
def move(first: Tensor, seed: tuple[int, ...]) -> Motion:
    """Draws a motion for each photograph and makes the second frame.

    Args:
        first: (B, 3, H, W), RGB in [0, 1]; H and W multiples of 8.
        seed: the same numbers give the same motion (the same noise only on the same kind of device).
    """
    count, _, height, width = first.shape
    rng = np.random.default_rng(seed)
    generator = torch.Generator(first.device).manual_seed(int(rng.integers(2**63)))
    flow = _draw_flow(count, height, width, rng, first.device)
    moved = warp(first, flow)
    chosen = rng.random(count) < EXPOSURE_SHARE
    gain = _column(1 + chosen * rng.uniform(-GAIN, GAIN, count), first)
    offset = _column(chosen * rng.uniform(-OFFSET, OFFSET, count), first)
    second = (gain * moved + offset).clamp(0, 1)
    brightening = luma(second) - luma(moved)
    noise = torch.randn(first.shape, generator=generator, device=first.device)
    second = second + _column(rng.uniform(0, NOISE, count), first) * noise
    step = np.where(rng.random(count) < COMPRESSION_SHARE, rng.uniform(*COMPRESSION, count), 0)
    second = torch.where(_column(step, first) > 0, compress(second, _column(step, first).clamp(min=1)), second)
    return Motion(second.clamp(0, 1), flow, _inside(flow), brightening)


def compress(image: Tensor, step: Tensor) -> Tensor:
    """What JPEG leaves of (B, 3, H, W) in [0, 1]: the cosine transform of blocks of 8x8, coarsely quantised.

    `step`, (B, 1, 1, 1) in 8-bit levels, is that of the mean of a block in luma; it grows with the frequency, to six
    times at the finest, and is doubled for the two differences of colour.
    """
    count, _, height, width = image.shape
    to_ycc = torch.tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]]).to(image)
    k = torch.arange(BLOCK, device=image.device, dtype=image.dtype)
    cosines = torch.cos(torch.pi * k.view(-1, 1) * (2 * k + 1) / (2 * BLOCK)) * (2 / BLOCK) ** 0.5
    cosines[0] /= 2**0.5  # orthonormal rows, one per frequency
    slope = (k.view(-1, 1) + k) / (2 * BLOCK - 2)
    table = (1 + 5 * slope) * torch.tensor([1.0, 2.0, 2.0]).to(image).view(3, 1, 1)
    table = step.view(-1, 1, 1, 1, 1, 1) * table.view(1, 3, 1, 1, BLOCK, BLOCK) * BLOCK / 255
    planes = torch.einsum("dc,bchw->bdhw", to_ycc, image)
    blocks = planes.reshape(count, 3, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    levels = torch.round(cosines @ blocks @ cosines.T / table) * table
    planes = (cosines.T @ levels @ cosines).transpose(3, 4).reshape(image.shape)
    return torch.einsum("dc,bchw->bdhw", torch.linalg.inv(to_ycc), planes)


def _draw_flow(count: int, height: int, width: int, rng: np.random.Generator, device: torch.device) -> Tensor:
    kinds = rng.choice(len(KINDS), count, p=SHARES)
    shift = rng.uniform(-SHIFT, SHIFT, (count, 2))
    zoom, angle = rng.uniform(-ZOOM, ZOOM, count), rng.uniform(-ROTATION, ROTATION, count)
    field = rng.normal(0, FIELD, (count, 2, FIELD_CELLS, FIELD_CELLS))
    ys = torch.linspace(-(height - 1) / 2, (height - 1) / 2, height, device=device).view(1, -1, 1)
    xs = torch.linspace(-(width - 1) / 2, (width - 1) / 2, width, device=device).view(1, 1, -1)
    smooth = torch.from_numpy(field).float().to(device)
    smooth = F.interpolate(smooth, (height, width), mode="bicubic", align_corners=True)
    parts = []
    for i, kind in enumerate(KINDS[k] for k in kinds):
        dx, dy = (np.round(shift[i]) if kind == "whole" else shift[i]) * (kind != "still")
        a, b = ((1 + zoom[i]) * np.cos(angle[i]) - 1, (1 + zoom[i]) * np.sin(angle[i]))
        part = torch.stack(((a * xs - b * ys)[0], (b * xs + a * ys)[0])) + smooth[i] if kind == "deform" else 0
        parts.append(part + torch.tensor([dx, dy], device=device).float().view(2, 1, 1).expand(2, height, width))
    return torch.stack(parts)


def _inside(flow: Tensor) -> Tensor:
    height, width = flow.shape[2:]
    x = torch.arange(width, device=flow.device) + flow[:, :1]
    y = torch.arange(height, device=flow.device).view(-1, 1) + flow[:, 1:]
    inside = (x >= BORDER) & (x <= width - 1 - BORDER) & (y >= BORDER) & (y <= height - 1 - BORDER)
    return inside.to(flow.dtype)


def _column(values: npt.NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like).view(-1, 1, 1, 1)
