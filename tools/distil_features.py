"""Distils VGG-19 into the compact perceptual network, models/compact-features.safetensors.

    python tools/distil_features.py --vgg VGG --content PHOTOGRAPHS --styles PAINTINGS --out RUN --steps 9000

RUN/ holds `checkpoint.pt`, `log.jsonl` and `compact-features.safetensors`, renewed every two minutes; the same command
goes on from the checkpoint (the learning rate follows --steps, which may be changed). Runs on a CPU or a GPU.

What is learnt, all relative so that every layer weighs the same: the activations (squared error over their variance),
and of each picture the Gram matrices and channel means. What from: photographs, paintings, results of a shipped style
network, mixtures of these, noise, and pictures that are being optimised on the network itself, because an optimiser
finds every hole that the other pictures leave. VGG-19 is most of the work, so a batch is kept and used again a few
times. Weights are averaged over the last 500 steps or so.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils import parametrize

from videonst.atomic import replacing
from videonst.export.checkpoint import read_start
from videonst.perceptual import Vgg19, content_loss, style_loss, style_statistics, total_variation_loss
from videonst.perceptual.compact import WEIGHTS, Compact
from videonst.perceptual.losses import Statistics, pick
from videonst.training.data import Photographs, list_images, read_image, resize_short_side, to_tensor

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
LEARNT = tuple(name for name in Compact.layers if name != "relu1_1")  # which is copied

GRAM_WEIGHT = 4.0
"""Weight of the Gram and mean errors beside the activations': they are squares of small numbers sooner."""
ADAM_BETAS = (0.9, 0.999)
WARM_UP = 100
FINAL_RATE = 0.02
CLIP = 1.0
AVERAGE_EVERY, AVERAGING = 10, 0.98
"""Steps between the weights that are averaged, and the share of the old average that stays."""
WHITENING_RIDGE = 1e-3
"""Added to the variances, relative to their mean, before the inputs of a convolution are scaled to variance 1."""

KEPT = 300
"""Batches with VGG-19's activations that are kept."""
USES = 8
"""How often a batch is used, on average."""

PAINTING_SIZES = (200, 640)
"""Range of the short side to which paintings are brought before cropping, pixels."""
ZOOM = (0.7, 1.6)

POOL = 24
"""Pictures that are being optimised on the network."""
POOL_FROM = 200
"""Step from which they are used: before, the network teaches them nothing."""
POOL_STEPS = 4
POOL_LIFE = 25
"""Steps of a picture each time it is used, and how often it is used before another takes its place."""
POOL_RATE = 0.03
POOL_STYLE_SIZE = 256
POOL_TARGETS_EVERY = 300
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

    def __init__(self, content: Path, styles: Path, student: "Student", seed: int, device: torch.device) -> None:
        self.photographs = Photographs(content, seed)
        self.paintings = [image for path in list_images(styles) if (image := read_image(path)) is not None]
        self.student, self.device, self.seed = student, device, seed
        self.painter = read_start(Path("models/fast.onnx")).to(device).eval()
        self.pool: list[Growing] = []
        self.targets: list[dict[str, Statistics]] = []
        self.targets_step = -POOL_TARGETS_EVERY

    def batch(self, step: int, count: int, crop: int) -> Tensor:
        rng = np.random.default_rng((self.seed, step))
        grown = count // 2 if step >= POOL_FROM else 0
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
                g.image = (g.image - POOL_RATE * g.first / (g.second**0.5 + 1e-12)).clamp(0, 1)
        for g in chosen:
            g.used += 1
        self.pool = [g for g in self.pool if g.used < POOL_LIFE]
        return [g.image for g in chosen]


class Student:
    """The network in training: predicts activations in units of each layer's root mean square in VGG-19."""

    def __init__(self, network: Compact, scales: dict[str, float], device: torch.device) -> None:
        self.network, self.scales, self.device = network, scales, device

    def __call__(self, image: Tensor, layers: tuple[str, ...] | list[str]) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16):
            taps: dict[str, Tensor] = self.network(image, layers)
        return taps

    def save(self, weights: dict[str, Tensor], path: Path) -> None:
        """Half precision, with VGG-19's scale in the readouts."""
        state = {name: value.clone() for name, value in weights.items()}
        for name, scale in self.scales.items():
            layer = "first" if name == "relu1_1" else f"read.{name}"
            state[f"{layer}.weight"] *= scale
            state[f"{layer}.bias"] *= scale
        state["trunk.0.0.weight"] /= self.scales["relu1_1"]
        with replacing(path) as part:
            save_file({name: value.half().contiguous().cpu() for name, value in state.items()}, part)


def errors(
    found: dict[str, Tensor], wanted: dict[str, Tensor], variances: dict[str, float]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each learnt layer: squared error over variance, and the style loss of its statistics (mean over pictures).

    `variances` holds running averages: the variance of flat pictures is too small to divide by.
    """
    found_statistics = style_statistics({k: found[k] for k in LEARNT})
    wanted_statistics = style_statistics({k: wanted[k] for k in LEARNT})
    result = {}
    for name in LEARNT:
        f, w = found[name].float(), wanted[name].float()
        own = (w - w.mean((0, 2, 3), keepdim=True)).square().mean().item()
        variances[name] = 0.99 * variances.get(name, own) + 0.01 * own
        variance = 0.5 * (own + variances[name])
        gram = style_loss({name: found_statistics[name]}, {name: wanted_statistics[name]})
        result[name] = ((f - w).square().mean() / variance, gram.clamp(max=4).mean())
    return result


TARGETS = (("pool1", "relu2_1"), ("pool2", "relu3_1"), ("pool3", "pool3", "relu4_1", "relu4_2"))
TARGETS += (("pool4", "pool4", "relu5_1"),)
"""What the convolutions of the trunk begin as: the best predictions of channels of these layers of VGG-19."""
BEFORE_POOL = {"pool1": "relu1_2", "pool2": "relu2_2", "pool3": "relu3_4", "pool4": "relu4_4"}
BEGIN_BATCHES, BEGIN_BATCH = 48, 8
MOST_POSITIONS = 40_000
"""Positions at which a convolution is fitted."""
RIDGE = 1e-3
"""Added to the diagonal of the normal equations, relative to its mean."""
FIT_ROUNDS = 6


def begin(network: Compact, teacher: Vgg19, scales: dict[str, float], pictures: Pictures, device: torch.device) -> None:
    """Fits the convolutions one after the other to channels of VGG-19 by least squares: a start far from random."""
    images = [pictures.batch(i, BEGIN_BATCH, 128) for i in range(BEGIN_BATCHES)]
    layers = {*LEARNT, *BEFORE_POOL.values()}
    teach = []
    with torch.no_grad():
        for image in images:
            taps = teacher(image, layers)
            taps |= {pool: F.max_pool2d(taps[layer], 2) for pool, layer in BEFORE_POOL.items()}
            teach.append({name: taps[name].float() for name in {*LEARNT, *BEFORE_POOL}})
        units = {name: torch.cat([t[name].square().mean()[None] for t in teach]).mean().sqrt() for name in teach[0]}
        now = [F.relu(network.first((x - network.mean) / network.std)) for x in images]
        for stage, (channels, names), targets in zip(network.trunk, network.stages, TARGETS, strict=True):
            for convolution, name, target in zip(stage, names, targets, strict=True):
                chosen = choose([t[target] for t in teach], channels)
                error = fit(convolution, now, [t[target][:, chosen] / units[target] for t in teach])
                now = [F.relu(convolution(x)) for x in now]
                print(f"{target}: {channels} channels, error {error:.3f} of the variance", flush=True)
                if name:
                    read = network.read[name]
                    error = fit(read, now, [t[name] / scales[name] for t in teach])
                    print(f"reading {name}: error {error:.3f} of the variance", flush=True)


def choose(maps: list[Tensor], count: int) -> Tensor:
    """The channels from which the others follow best (greedy choice of columns)."""
    rows = torch.cat([x.permute(0, 2, 3, 1).flatten(0, 2)[:: max(1, x[:, 0].numel() // 4000)] for x in maps])
    rest = rows.T @ rows
    chosen = []
    for _ in range(count):
        gain = rest.square().sum(1) / rest.diagonal().clamp(min=1e-6 * rest.diagonal().max())
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        rest = rest - rest[:, best : best + 1] @ rest[best : best + 1] / rest[best, best].clamp(min=1e-9)
    return torch.tensor(chosen)


def fit(convolution: torch.nn.Conv2d, maps: list[Tensor], wanted: list[Tensor]) -> float:
    """Least squares through the ReLU: where 0 is wanted, what is below 0 is right as it is. Returns the error."""
    size, step, padding = convolution.kernel_size, convolution.stride, convolution.padding
    generator = torch.Generator().manual_seed(0)
    xs, ys = [], []
    for x, y in zip(maps, wanted, strict=True):
        patches = F.unfold(x, size, stride=step, padding=padding).transpose(1, 2).flatten(0, 1)
        rows = y.permute(0, 2, 3, 1).flatten(0, 2)
        picked = torch.randperm(len(rows), generator=generator)[: MOST_POSITIONS // len(maps)]
        xs.append(patches[picked.to(x.device)])
        ys.append(rows[picked.to(x.device)])
    x, y = torch.cat(xs), torch.cat(ys)
    x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
    square = x.T @ x
    square.diagonal().add_(RIDGE * square.diagonal().mean())
    factor = torch.linalg.cholesky(square)
    goal = y
    for _ in range(FIT_ROUNDS):
        solution = torch.cholesky_solve(x.T @ goal, factor)
        found = x @ solution
        goal = torch.where(y > 0, y, found.clamp(max=0))
    convolution.weight.copy_(solution[:-1].T.reshape(convolution.weight.shape))
    convolution.bias.copy_(solution[-1])
    return float((found.clamp(min=0) - y).square().sum() / (y - y.mean(0)).square().sum())


class Whitened(torch.nn.Module):
    """Parametrisation of a convolution's weight in which its inputs are uncorrelated and of variance 1.

    Activations of one sign are strongly correlated: in their own coordinates Adam spoilt the fitted start at any rate
    above 1e-4. In these it stands about three times the rate. Channels and window are whitened apart (a Kronecker
    product), as in K-FAC.
    """

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.channels, self.window = torch.nn.Buffer(torch.eye(channels)), torch.nn.Buffer(torch.eye(window))

    def measure(self, x: Tensor, size: tuple[int, int], step: tuple[int, int], padding: tuple[int, int]) -> None:
        """From inputs (B, C, H, W) of the convolution."""
        patches = F.unfold(x, size, stride=step, padding=padding).unflatten(1, (x.shape[1], -1))  # (B, C, K, L)
        window = torch.einsum("bckl,bcjl->kj", patches, patches)
        rows = x.transpose(0, 1).flatten(1)
        self.channels.copy_(inverse_root(rows @ rows.T / rows.shape[1]))
        self.window.copy_(inverse_root(window * len(window) / window.trace()))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return torch.einsum("ock,cd,kj->odj", weight.flatten(2), self.channels, self.window).view_as(weight)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return torch.einsum(
            "ock,cd,kj->odj", weight.flatten(2), torch.linalg.inv(self.channels), torch.linalg.inv(self.window)
        ).view_as(weight)


def inverse_root(square: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(square.double())
    values = values.clamp(min=0) + WHITENING_RIDGE * values.mean()
    return ((vectors * values**-0.5) @ vectors.T).float()


def whiten(network: Compact, image: Tensor | None) -> None:
    """Gives every convolution but the first coordinates measured on `image`; without one, to be loaded."""
    inputs: dict[torch.nn.Conv2d, Tensor] = {}
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m is not network.first]
    hooks = [m.register_forward_pre_hook(lambda m, x: inputs.__setitem__(m, x[0])) for m in convolutions]
    with torch.no_grad():
        if image is not None:
            network(image, LEARNT)
        for convolution in convolutions:
            size = convolution.kernel_size
            whitened = Whitened(convolution.in_channels, size[0] * size[1])
            if image is not None:
                whitened.measure(inputs[convolution], size, convolution.stride, convolution.padding)
            parametrize.register_parametrization(convolution, "weight", whitened.to(convolution.weight.device))
    for hook in hooks:
        hook.remove()


def plain(network: Compact) -> dict[str, Tensor]:
    """The network's state without parametrisations."""
    state = {f"{n}.{p}": getattr(m, p).detach() for n, m in network.named_modules()
             if isinstance(m, torch.nn.Conv2d) for p in ("weight", "bias")}  # fmt: skip
    return state | {"mean": network.mean, "std": network.std}


class Distillation:
    """The run. The teacher's activations come in the same units as the student's."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, torch.device(options.device)
        torch.manual_seed(options.seed)
        self.teacher = Vgg19(options.vgg).to(self.device, torch.bfloat16)
        network = Compact().to(self.device).to(memory_format=torch.channels_last)
        self.student = Student(network, {}, self.device)
        self.pictures = Pictures(options.content, options.styles, self.student, options.seed, self.device)
        self._measure_scales()
        first = self.teacher.features[0]
        with torch.no_grad():
            network.first.weight.copy_(first.weight.float() / self.student.scales["relu1_1"])
            network.first.bias.copy_(first.bias.float() / self.student.scales["relu1_1"])
        network.first.requires_grad_(False)
        options.out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = options.out / "checkpoint.pt"
        if self.checkpoint.exists():
            whiten(network, None)
        else:
            begin(network, self.teacher, self.student.scales, self.pictures, self.device)
            whiten(network, self.pictures.batch(0, BEGIN_BATCH, options.crop))
        self.learnt = [p for p in network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(self.learnt, lr=options.rate, betas=ADAM_BETAS)
        self.average = {name: value.clone() for name, value in plain(network).items()}
        self.variances: dict[str, float] = {}
        self.kept: list[tuple[Tensor, dict[str, Tensor]]] = []
        self.step = 0
        if self.checkpoint.exists():
            self._resume()

    def run(self) -> None:
        saved = time.monotonic()
        with (self.options.out / "log.jsonl").open("a", encoding="utf-8") as log:
            while self.step < self.options.steps:
                began = time.monotonic()
                image, wanted = self._batch()
                entry = self._train(image, wanted)
                self.step += 1
                entry |= {"step": self.step, "seconds": round(time.monotonic() - began, 3)}
                print(json.dumps(entry), file=log, flush=True)
                if time.monotonic() - saved > 120 or self.step == self.options.steps:
                    self._save()
                    saved = time.monotonic()

    def _batch(self) -> tuple[Tensor, dict[str, Tensor]]:
        rng = np.random.default_rng((self.options.seed, self.step, 1))
        if len(self.kept) >= 8 and self.step % USES:
            return self.kept[rng.integers(len(self.kept))]
        image = self.pictures.batch(self.step, self.options.batch, self.options.crop).float()
        image = image.contiguous(memory_format=torch.channels_last)
        fresh = image, self._teach(image)
        if len(self.kept) < KEPT:
            self.kept.append(fresh)
        else:
            self.kept[rng.integers(KEPT)] = fresh
        return fresh

    @torch.no_grad()
    def _teach(self, image: Tensor) -> dict[str, Tensor]:
        taps = self.teacher(image, LEARNT)
        return {name: taps[name] / self.student.scales.get(name, 1.0) for name in LEARNT}

    def _train(self, image: Tensor, wanted: dict[str, Tensor]) -> dict[str, object]:
        found = errors(self.student(image, LEARNT), wanted, self.variances)
        loss = torch.stack([fit + GRAM_WEIGHT * gram for fit, gram in found.values()]).sum()
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.rate * self._schedule()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.learnt, CLIP)
        if torch.isfinite(norm):
            self.optimiser.step()
        if self.step % AVERAGE_EVERY == 0:
            for name, value in plain(self.student.network).items():
                self.average[name].lerp_(value, 1 - AVERAGING)
        return {name: [round(fit.item(), 4), round(gram.item(), 5)] for name, (fit, gram) in found.items()}

    def _schedule(self) -> float:
        if self.step < WARM_UP:
            return (self.step + 1) / WARM_UP
        progress = min(1.0, self.step / self.options.steps)
        return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress))

    @torch.no_grad()
    def _measure_scales(self) -> None:
        """Root mean square of VGG-19's layers on photographs."""
        taps = self.teacher(self.pictures.photographs.batch(0, 8, 128, (1, 1)).to(self.device), Compact.layers)
        self.student.scales = {name: tap.float().square().mean().sqrt().item() for name, tap in taps.items()}

    def _save(self) -> None:
        state = {
            "step": self.step, "network": self.student.network.state_dict(), "average": self.average,
            "optimiser": self.optimiser.state_dict(), "scales": self.student.scales,
        }  # fmt: skip
        with replacing(self.checkpoint) as part:
            torch.save(state, part)
        self.student.save(self.average, self.options.out / WEIGHTS)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.student.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.student.scales, self.step = state["average"], state["scales"], state["step"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("vgg", "content", "styles", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1.5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    Distillation(options).run()


if __name__ == "__main__":
    main()
