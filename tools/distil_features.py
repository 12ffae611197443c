"""Distils VGG-19 into the compact perceptual network, models/compact-features.safetensors.

    python tools/distil_features.py --vgg VGG --content PHOTOGRAPHS --styles PAINTINGS --out RUN --steps 10000

RUN/ holds `checkpoint.pt`, `log.jsonl` and `compact-features.safetensors`, renewed every two minutes; the same command
goes on from the checkpoint (the learning rate follows --steps, which may be changed). Runs on a CPU or a GPU.

What is learnt, all relative so that every layer weighs the same: the activations (squared error over their variance),
and of each picture the Gram matrices and channel means. VGG-19 pools by the mean, as it does in the quality mode. What
it is learnt from: `distil_pictures.py`; where it starts: `distil_start.py`. VGG-19 is much of the work, so a batch is
kept and used again a few times. Weights are averaged over the last 500 steps or so. `distil_deep.py` then renews what
lies behind relu4_2.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from distil_pictures import Pictures
from distil_start import BEGIN_BATCH, LEARNT, begin, plain, whiten
from safetensors.torch import save_file
from torch import Tensor

from videonst.atomic import replacing
from videonst.perceptual import Vgg19, style_loss, style_statistics
from videonst.perceptual.compact import WEIGHTS, Compact, pack

GRAM_WEIGHT = 4.0
"""Weight of the Gram and mean errors beside the activations': they are squares of small numbers sooner."""
ADAM_BETAS = (0.9, 0.999)
WARM_UP = 100
FINAL_RATE = 0.02
CLIP = 1.0
AVERAGE_EVERY, AVERAGING = 10, 0.98
"""Steps between the weights that are averaged, and the share of the old average that stays."""
KEPT = 150
"""Batches with VGG-19's activations that are kept."""
USES = 3
"""How often a batch is used, on average."""


class Student:
    """The network in training: predicts activations in units of each layer's root mean square in VGG-19."""

    def __init__(self, network: Compact, scales: dict[str, float], device: torch.device) -> None:
        self.network, self.scales, self.device = network, scales, device

    def __call__(self, image: Tensor, layers: tuple[str, ...] | list[str]) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16):
            taps: dict[str, Tensor] = self.network(image, layers)
        return taps

    def save(self, weights: dict[str, Tensor], path: Path) -> None:
        """With VGG-19's scale in the readouts."""
        state = {name: value.clone() for name, value in weights.items()}
        for name, scale in self.scales.items():
            layer = "first" if name == "relu1_1" else f"read.{name}"
            state[f"{layer}.weight"] *= scale
            state[f"{layer}.bias"] *= scale
        state["trunk.0.0.weight"] /= self.scales["relu1_1"]
        with replacing(path) as part:
            save_file(pack(state), part)


def errors(
    found: dict[str, Tensor], wanted: dict[str, Tensor], variances: dict[str, float]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each layer: squared error over variance, and the style loss of its statistics (mean over pictures).

    `variances` holds running averages: the variance of flat pictures is too small to divide by.
    """
    found_statistics, wanted_statistics = style_statistics(found), style_statistics(wanted)
    result = {}
    for name in wanted:
        f, w = found[name].float(), wanted[name].float()
        own = (w - w.mean((0, 2, 3), keepdim=True)).square().mean().item()
        variances[name] = 0.99 * variances.get(name, own) + 0.01 * own
        variance = 0.5 * (own + variances[name])
        gram = style_loss({name: found_statistics[name]}, {name: wanted_statistics[name]})
        result[name] = ((f - w).square().mean() / variance, gram.clamp(max=4).mean())
    return result


def schedule(step: int, steps: int) -> float:
    """Of the learning rate: rises, then falls as a cosine does."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


class Distillation:
    """The run. The teacher's activations come in the same units as the student's."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, torch.device(options.device)
        torch.manual_seed(options.seed)
        self.teacher = Vgg19(options.vgg, average=True).to(self.device, torch.bfloat16)
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
        convolutions = [*(c for stage in network.trunk for c in stage), *network.read.values()]
        if self.checkpoint.exists():
            whiten(convolutions, None)
        else:
            begin(network, self.teacher, self.student.scales, self.pictures, options.crop)
            whiten(convolutions, lambda: network(self.pictures.batch(0, BEGIN_BATCH, options.crop), LEARNT))
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
            group["lr"] = self.options.rate * schedule(self.step, self.options.steps)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.learnt, CLIP)
        if torch.isfinite(norm):
            self.optimiser.step()
        if self.step % AVERAGE_EVERY == 0:
            for name, value in plain(self.student.network).items():
                self.average[name].lerp_(value, 1 - AVERAGING)
        return {name: [round(fit.item(), 4), round(gram.item(), 5)] for name, (fit, gram) in found.items()}

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
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1.5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    Distillation(options).run()


if __name__ == "__main__":
    main()
