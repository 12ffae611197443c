"""How near the compact perceptual network is to VGG-19 with average pooling: activations, Gram matrices, speed, and
pictures optimised on it.

    python tools/evaluate_features.py errors --data DATA
    python tools/evaluate_features.py speed --size 512 --mode bf16
    python tools/evaluate_features.py pictures --data DATA --size 256 --steps 120 --sheet sheet.png

DATA holds `vgg19-features.safetensors`, `heldout/` (photographs that were not trained on) and `styles/`. `pictures`
is the test that counts: each pair is optimised on VGG-19 and on the compact network, there with several weights of the
content, and the style losses on VGG-19 are compared at the content loss on VGG-19 that its own result has.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from videonst.perceptual import (
    Features,
    Vgg19,
    content_loss,
    open_features,
    style_loss,
    style_statistics,
    total_variation_loss,
)
from videonst.perceptual.compact import open_compact
from videonst.perceptual.losses import Statistics
from videonst.training.data import list_images, read_image, resize_short_side, to_tensor

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYER = "relu4_2"
TO_RELU4_1 = STYLE_LAYERS[:4]

CONTENT_WEIGHT = 0.05
"""Of VGG-19's run, with style 1: a strong style on a photograph that can still be read."""
CONTENT_FACTORS = (0.6, 1.0, 1.7)
"""Content weights tried on the other network, relative; the style loss at equal content is read off between them."""
RATE, BETAS = 0.02, (0.9, 0.99)
TOTAL_VARIATION = 0.002

PAINTINGS = ("starry_night", "great_wave", "the_scream", "udnie")


@dataclass(frozen=True)
class Losses:
    """Content loss of a result on VGG-19, and style losses layer by layer."""

    content: float
    layers: tuple[float, ...]

    @property
    def style(self) -> float:
        return statistics.mean(self.layers)

    def __str__(self) -> str:
        return f"content {self.content:.3f} style {self.style:.4f} = {' '.join(f'{x:.4f}' for x in self.layers)}"


@dataclass(frozen=True)
class Comparison:
    """A photograph in the style of a painting, optimised on VGG-19 and on another network.

    `ratio` is the other's style loss over VGG-19's, both measured on VGG-19, at the content loss of VGG-19's result.
    """

    photo: str
    painting: str
    vgg: Losses
    other: tuple[Losses, ...]
    ratio: float
    pictures: tuple[Tensor, Tensor]


def feature_errors(other: Features, vgg: Vgg19, images: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
    """Of each layer: squared error of the activations over their variance, and of the Gram matrix over its square."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in other.layers}
    with torch.inference_mode():
        for image in images:
            taps, wanted = other(image, other.layers), vgg(image, other.layers)
            grams, wanted_grams = style_statistics(taps), style_statistics(wanted)
            for name in other.layers:
                w, g = wanted[name].float(), wanted_grams[name].gram
                fit = (taps[name].float() - w).square().sum() / (w - w.mean((2, 3), keepdim=True)).square().sum()
                found[name].append((fit.item(), ((grams[name].gram - g).square().sum() / g.square().sum()).item()))
    return {name: (statistics.mean(f for f, _ in v), statistics.mean(g for _, g in v)) for name, v in found.items()}


def optimise(
    network: Features,
    photo: Tensor,
    target: dict[str, Statistics],
    content_weight: float,
    steps: int,
) -> Tensor:
    """Adam on the pixels from the photograph: content_weight x content + style. Returns (1, 3, H, W) in [0, 1]."""
    with torch.no_grad():
        kept = network(photo, [CONTENT_LAYER])[CONTENT_LAYER].float()
    image = photo.clone().requires_grad_()
    adam = torch.optim.Adam([image], lr=RATE, betas=BETAS)
    for _ in range(steps):
        taps = network(image, (*STYLE_LAYERS, CONTENT_LAYER))
        style = style_loss(style_statistics({k: taps[k] for k in STYLE_LAYERS}), target)
        content = content_loss(taps[CONTENT_LAYER], kept)
        loss = content_weight * content + style + TOTAL_VARIATION * total_variation_loss(image)
        adam.zero_grad(set_to_none=True)
        loss.sum().backward()
        adam.step()
        with torch.no_grad():
            image.clamp_(0, 1)
    return image.detach()


def statistics_of(network: Features, painting: Tensor) -> dict[str, Statistics]:
    """Of the style layers."""
    with torch.no_grad():
        return style_statistics(network(painting, STYLE_LAYERS))


def measure(vgg: Vgg19, picture: Tensor, photo: Tensor, target: dict[str, Statistics]) -> Losses:
    """The losses on VGG-19; `target` are its statistics of the painting."""
    with torch.no_grad():
        taps = vgg(picture, (*STYLE_LAYERS, CONTENT_LAYER))
        kept = vgg(photo, [CONTENT_LAYER])[CONTENT_LAYER]
        found = style_statistics({k: taps[k] for k in STYLE_LAYERS})
        layers = tuple(style_loss({k: found[k]}, {k: target[k]}).item() for k in STYLE_LAYERS)
        return Losses(content_loss(taps[CONTENT_LAYER], kept).item(), layers)


def compare(vgg: Vgg19, other: Features, photo: Tensor, painting: Tensor, steps: int, name: str = "") -> Comparison:
    """Optimises on both and compares at equal content loss."""
    target, own_target = statistics_of(vgg, painting), statistics_of(other, painting)
    reference = optimise(vgg, photo, target, CONTENT_WEIGHT, steps)
    aim = measure(vgg, reference, photo, target)
    results = [optimise(other, photo, own_target, CONTENT_WEIGHT * f, steps) for f in CONTENT_FACTORS]
    losses = [measure(vgg, result, photo, target) for result in results]
    style = style_at(losses, aim.content)
    nearest = min(range(len(losses)), key=lambda i: abs(losses[i].content - aim.content))
    photo_name, _, painting_name = name.partition("/")
    return Comparison(photo_name, painting_name, aim, tuple(losses), style / aim.style, (reference, results[nearest]))


def style_at(losses: Sequence[Losses], content: float) -> float:
    """Style loss at a content loss: a straight line through the two nearest measurements, both logarithmic."""
    a, b = sorted(losses, key=lambda m: abs(math.log(m.content / content)))[:2]
    slope = math.log(b.style / a.style) / math.log(b.content / a.content)
    return a.style * math.exp(slope * math.log(content / a.content))


def step_seconds(network: Features, layers: Sequence[str], size: int, mode: str) -> "Step":
    """Makes a step to be timed: forward and gradient to the input, without the cost of any loss."""
    kind = torch.float32 if mode == "fp32" else torch.bfloat16
    network = network.to(kind)
    run = torch.compile(network, dynamic=False) if mode == "compiled" else network
    image = torch.rand(1, 3, size, size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        weights = [torch.randn_like(network(image, layers)[name]) for name in layers]
    return Step(run, tuple(layers), image, weights)


@dataclass
class Step:
    """Callable: one forward pass and the gradient of a random linear function of the activations to the image."""

    run: torch.nn.Module
    layers: tuple[str, ...]
    image: Tensor
    weights: list[Tensor]

    def __call__(self) -> float:
        """Seconds."""
        began = time.perf_counter()
        image = self.image.clone().requires_grad_()
        taps = self.run(image, self.layers)
        torch.autograd.grad([taps[name] for name in self.layers], image, self.weights)
        return time.perf_counter() - began


def speed(vgg: Vgg19, compact: Features, size: int, mode: str, rounds: int = 9) -> dict[str, float]:
    """Median seconds a step, alternating, to relu4_1 and to relu5_1, and how many times VGG-19's the compact's are."""
    steps = {
        f"{network.name} to {layers[-1]}": step_seconds(network, layers, size, mode)
        for network, layers in product((vgg, compact), (TO_RELU4_1, STYLE_LAYERS))
    }
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds + 2):
        for name, step in steps.items():
            seconds = step()
            if index >= 2:
                taken[name].append(seconds)
    median = {name: statistics.median(values) for name, values in taken.items()}
    return median | {
        "times faster to relu4_1": median["vgg19 to relu4_1"] / median["compact to relu4_1"],
        "times faster to relu5_1": median["vgg19 to relu5_1"] / median["compact to relu5_1"],
    }


def load(path: Path, size: int) -> Tensor:
    """A picture with its short side brought to `size`."""
    image = read_image(path)
    assert image is not None, path
    return to_tensor(resize_short_side(image, size))


def centre(image: Tensor) -> Tensor:
    """The square in the middle."""
    side = min(image.shape[2:])
    top, left = (image.shape[2] - side) // 2, (image.shape[3] - side) // 2
    return image[:, :, top : top + side, left : left + side]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("errors", "speed", "pictures"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--compact", type=Path, help="instead of the shipped weights")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--mode", choices=("fp32", "bf16", "compiled"), default="bf16")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--photos", type=int, default=2)
    parser.add_argument("--paintings", nargs="*", default=PAINTINGS)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vgg = Vgg19(options.data / "vgg19-features.safetensors", average=True)
    compact = open_compact(options.compact) if options.compact else open_features("compact")
    if options.what == "speed":
        print(json.dumps(speed(vgg, compact, options.size, options.mode), indent=1))
        return
    heldout = list_images(options.data / "heldout")
    if options.what == "errors":
        groups = {"photographs": heldout[:12], "paintings": list_images(options.data / "styles")}
        for group, paths in groups.items():
            found = feature_errors(compact, vgg, [centre(load(path, options.size)) for path in paths])
            for name, (fit, gram) in found.items():
                print(f"{group} {name}: activations {fit:.4f}, Gram {gram:.5f}")
        return
    vgg.bfloat16(), compact.bfloat16()
    rows = []
    for name, path in product(options.paintings, heldout[: options.photos]):
        painting = load(next((options.data / "styles").glob(f"{name}.*")), options.size * 5 // 4)
        found = compare(vgg, compact, centre(load(path, options.size)), painting, options.steps, f"{path.stem}/{name}")
        rows.append(found)
        print(f"{name} x {path.stem}: ratio {found.ratio:.3f}\n  VGG-19   {found.vgg}")
        for factor, losses in zip(CONTENT_FACTORS, found.other, strict=True):
            print(f"  compact  {losses} (content x {factor})", flush=True)
    print(f"mean ratio {math.exp(statistics.mean(math.log(r.ratio) for r in rows)):.3f}")
    if options.sheet:
        pictures = [torch.cat(r.pictures, 3)[0].permute(1, 2, 0).numpy() for r in rows]
        sheet = (np.concatenate(pictures) * 255 + 0.5).astype(np.uint8)
        cv2.imwrite(str(options.sheet), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
