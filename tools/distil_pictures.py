"""The pictures from which `distil_features.py` learns.

Photographs, paintings, results of a shipped style network, mixtures of these, noise, and pictures that are being
optimised on the network itself, because an optimiser finds every hole that the other pictures leave.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from videonst.export.checkpoint import read_start
from videonst.perceptual import content_loss, style_loss, style_statistics, total_variation_loss
from videonst.perceptual.compact import Compact
from videonst.perceptual.losses import Statistics, pick
from videonst.training.data import Photographs, list_images, read_image, resize_short_side, to_tensor

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

Student = Callable[[Tensor, tuple[str, ...] | list[str]], dict[str, Tensor]]
"""The network in training."""

PAINTING_SIZES = (200, 640)
"""Range of the short side to which paintings are brought before cropping, pixels."""
ZOOM = (0.7, 1.6)

POOL = 24
"""Pictures that are being optimised on the network."""
POOL_FROM = 400
"""Step from which they are used: before, the network teaches them nothing."""
POOL_SHARE = 0.7
"""Of the pictures that are fresh."""
POOL_STEPS = 3
POOL_LIFE = 40
"""Steps of a picture each time it is used, and how often it is used before another takes its place."""
POOL_RATE = 0.04
"""Of a new picture; falls to nothing over its life, so that old ones have settled as those of an L-BFGS run settle."""
POOL_STYLE_SIZE = 256
POOL_TARGETS_EVERY = 100
"""Steps after which the paintings' statistics are measured again on the network as it has become."""


@dataclass
class Growing:
    """A picture that is being optimised: itself, what it keeps, how strong its style, and Adam's two averages."""

    image: Tensor
    photo: Tensor
    painting: int
    strength: float
    used: int = 0
    first: Tensor | float = 0.0
    second: Tensor | float = 0.0


class Pictures:
    """Makes batches of all kinds of pictures, (B, 3, crop, crop) in [0, 1]."""

    def __init__(self, content: Path, styles: Path, student: Student, seed: int, device: torch.device) -> None:
        self.photographs = Photographs(content, seed)
        self.paintings = [image for path in list_images(styles) if (image := read_image(path)) is not None]
        self.student, self.device, self.seed = student, device, seed
        self.painter = read_start(Path("models/fast.onnx")).to(device).eval()
        self.pool: list[Growing] = []
        self.targets: list[dict[str, Statistics]] = []
        self.targets_step = -POOL_TARGETS_EVERY

    def batch(self, step: int, count: int, crop: int) -> Tensor:
        rng = np.random.default_rng((self.seed, step))
        grown = int((rng.random(count) < POOL_SHARE).sum()) if step >= POOL_FROM else 0
        made = [self._make(rng, step * count + i, crop) for i in range(count - grown)]
        return torch.cat(made + (self._grow(rng, step, grown, crop) if grown else [])).clamp(0, 1)

    def _make(self, rng: np.random.Generator, index: int, crop: int) -> Tensor:
        kind = rng.choice(["photo", "painting", "painted", "blend", "noise"], p=[0.3, 0.3, 0.2, 0.12, 0.08])
        if kind == "noise":
            picture = self._noise(rng, crop)
        elif kind == "painting":
            picture = self._painting(rng, crop)
        else:
            picture = self.photographs.batch(index, 1, crop, ZOOM).to(self.device)
        if kind == "blend":
            share = rng.uniform()
            other = self._painting(rng, crop) if rng.random() < 0.5 else self._noise(rng, crop)
            picture = share * picture + (1 - share) * other
        if kind == "painted":
            weights = torch.zeros(1, len(self.painter.bank), device=self.device)
            strength = rng.uniform(0.4, 1.3)
            weights[0, 0], weights[0, rng.integers(1, len(self.painter.bank))] = 1 - strength, strength
            with torch.no_grad():
                picture = self.painter(picture, weights)
        if rng.random() < 0.3:
            picture = picture + rng.uniform(0, 0.15) * torch.randn(picture.shape, device=self.device)
        return picture

    def _painting(self, rng: np.random.Generator, crop: int) -> Tensor:
        image = self.paintings[rng.integers(len(self.paintings))]
        factor = max(crop, math.exp(rng.uniform(*np.log(PAINTING_SIZES)))) / min(image.shape[:2])
        side = min(round(crop / factor), *image.shape[:2])
        top, left = (rng.integers(0, length - side + 1) for length in image.shape[:2])
        square = resize_short_side(image[top : top + side, left : left + side], crop)
        return to_tensor(square[:, :: rng.choice([1, -1])]).to(self.device)

    def _noise(self, rng: np.random.Generator, crop: int) -> Tensor:
        """Noise of a random grain, contrast and colour."""
        grain = int(rng.choice([1, 1, 2, 4, 8, 16]))
        noise = torch.from_numpy(rng.standard_normal((1, 3, crop // grain, crop // grain))).float()
        noise = F.interpolate(noise, (crop, crop), mode="bicubic") * rng.uniform(0.02, 0.4)
        return (noise + torch.from_numpy(rng.uniform(0, 1, (1, 3, 1, 1))).float()).to(self.device)

    def _grow(self, rng: np.random.Generator, step: int, count: int, crop: int) -> list[Tensor]:
        """Takes pictures from the pool and optimises them a little further."""
        if step - self.targets_step >= POOL_TARGETS_EVERY:
            images = [to_tensor(resize_short_side(p, POOL_STYLE_SIZE)).to(self.device) for p in self.paintings]
            with torch.no_grad():
                self.targets = [style_statistics(self.student(image, STYLE_LAYERS)) for image in images]
            self.targets_step = step
        if self.pool and self.pool[0].image.shape[-1] != crop:
            self.pool = []
        while len(self.pool) < POOL:
            photo = self.photographs.batch(int(rng.integers(1 << 30)), 1, crop, ZOOM).to(self.device)
            kind = rng.random()
            start = photo if kind < 0.6 else self._noise(rng, crop).clamp(0, 1) if kind < 0.8 else None
            if start is None:
                start = self._make(rng, int(rng.integers(1 << 30)), crop).clamp(0, 1)
            strength = math.exp(rng.uniform(math.log(1), math.log(60)))
            growing = Growing(start, photo, int(rng.integers(len(self.paintings))), strength)
            growing.used = int(rng.integers(POOL_LIFE)) if len(self.pool) < POOL - 1 else 0  # so that ages differ
            self.pool.append(growing)
        chosen = [self.pool[i] for i in rng.choice(POOL, count, replace=False)]
        target = pick(self.targets, [g.painting for g in chosen])
        photo = torch.cat([g.photo for g in chosen])
        with torch.no_grad():
            kept = self.student(photo, ["relu4_2"])["relu4_2"]
        strength = torch.tensor([g.strength for g in chosen], device=self.device)
        for _ in range(POOL_STEPS):
            image = torch.cat([g.image for g in chosen]).requires_grad_()
            taps = self.student(image, Compact.layers)
            style = style_loss(style_statistics({k: taps[k] for k in STYLE_LAYERS}), target)
            loss = content_loss(taps["relu4_2"], kept) + strength * style + 0.05 * total_variation_loss(image)
            (gradient,) = torch.autograd.grad(loss.sum(), image)
            for g, d in zip(chosen, gradient.split(1), strict=True):
                g.first = 0.9 * g.first + 0.1 * d
                g.second = 0.99 * g.second + 0.01 * d.square()
                rate = POOL_RATE * (1 - g.used / POOL_LIFE)
                g.image = (g.image - rate * g.first / (g.second**0.5 + 1e-12)).clamp(0, 1)
        for g in chosen:
            g.used += 1
        self.pool = [g for g in self.pool if g.used < POOL_LIFE]
        return [g.image for g in chosen]
