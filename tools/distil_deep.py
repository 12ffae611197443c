"""Distils VGG-19 into the deepest stages of the compact perceptual network only, those behind relu4_2.

    python tools/distil_deep.py --vgg VGG --content PHOTOGRAPHS --styles PAINTINGS --start WEIGHTS --out RUN

WEIGHTS is a file of `distil_features.py`; all that leads to relu4_2 stays as it is there. RUN/ holds `checkpoint.pt`,
`log.jsonl` and `compact-features.safetensors`, renewed every three minutes; the same command goes on from the
checkpoint, but without the squares that had been collected.

The loss and the pictures are those of `distil_features.py`. What stays is run once for each square, and what is learnt
costs little beside VGG-19, so that squares are used many times, several in a step.
"""

import argparse
import json
import time
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from distil_features import (
    ADAM_BETAS,
    AVERAGE_EVERY,
    AVERAGING,
    CLIP,
    GRAM_WEIGHT,
    errors,
    schedule,
)
from distil_pictures import POOL_FROM, Pictures
from distil_start import TARGETS, fit_stages, plain, teach_targets, whiten
from safetensors.torch import load_file, save_file
from torch import Tensor

from videonst.atomic import replacing
from videonst.perceptual import Vgg19
from videonst.perceptual.compact import WEIGHTS, Compact, Relu, pack, unpack

LEARNT = "relu5_1"
KEPT_STAGES = 3
"""Stages of the trunk that stay: those to relu4_2."""
BEGIN = POOL_FROM
"""Squares of the least-squares start."""
BATCH_OF_COORDINATES = 32
KEPT = 2000
"""Latest squares that are kept."""
FRESH_EVERY = 2
"""Steps for each square that comes anew."""
REFRESH_EVERY = 10
"""Steps after which the copy on which pictures are optimised follows what was learnt."""
SAVE_SECONDS = 180


class Quick:
    """A copy of the network for the pictures that are being optimised: bf16, compiled, as the quality mode runs it."""

    def __init__(self, device: torch.device) -> None:
        self.network = Compact().to(device, torch.bfloat16).to(memory_format=torch.channels_last).requires_grad_(False)
        self.compiled = torch.compile(self.network, dynamic=False)

    def __call__(self, image: Tensor, layers: tuple[str, ...] | list[str]) -> dict[str, Tensor]:
        taps: dict[str, Tensor] = (self.compiled if image.requires_grad else self.network)(image, layers)
        return taps


class DeepDistillation:
    """The run. What is learnt predicts relu5_1 in units of its root mean square in VGG-19."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, torch.device(options.device)
        torch.manual_seed(options.seed)
        self.teacher = Vgg19(options.vgg, average=True).to(self.device, torch.bfloat16)
        self.network = Compact().to(self.device).to(memory_format=torch.channels_last)
        self.stages = self.network.trunk[KEPT_STAGES:]
        self.quick = Quick(self.device)
        self.pictures = Pictures(options.content, options.styles, self.quick, options.seed, self.device)
        options.out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = options.out / "checkpoint.pt"
        resumed = self.checkpoint.exists()
        own = self.network.state_dict()
        own |= {k: v for k, v in unpack(load_file(options.start)).items() if k in own and v.shape == own[k].shape}
        self.network.load_state_dict(own)
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.variances: dict[str, float] = {}
        self.step = 0
        self.scale = 1.0
        with torch.no_grad():
            self._begin(resumed)
        self.learnt = [*self.stages.parameters(), *self.network.read[LEARNT].parameters()]
        self.optimiser = torch.optim.Adam(self.learnt, lr=options.rate, betas=ADAM_BETAS)
        self.average = {name: value.clone() for name, value in plain(self.network).items()}
        if resumed:
            self._resume()

    def _begin(self, resumed: bool) -> None:
        """Least-squares start of what is learnt, and its coordinates."""
        count = BATCH_OF_COORDINATES if resumed else BEGIN
        images = [self.pictures.batch(i, 1, self.options.crop) for i in range(count)]
        aims = {LEARNT, *chain(*TARGETS[KEPT_STAGES:])}
        teach = [teach_targets(self.teacher, image, aims) for image in images]
        self.kept = [(self._shallow(image), t[LEARNT]) for image, t in zip(images, teach, strict=True)]
        now = [x.float() for x, _ in self.kept]
        if not resumed:
            self.scale = float(torch.stack([t[LEARNT].float().square().mean() for t in teach]).mean().sqrt())
            fit_stages(self.network, KEPT_STAGES, now, teach, {LEARNT: self.scale})
        convolutions = [*(c for stage in self.stages for c in stage), self.network.read[LEARNT]]
        whiten(convolutions, lambda: self._deep(torch.cat(now[:BATCH_OF_COORDINATES])))

    def run(self) -> None:
        saved = time.monotonic()
        with (self.options.out / "log.jsonl").open("a", encoding="utf-8") as log:
            while self.step < self.options.steps:
                began = time.monotonic()
                if self.step % REFRESH_EVERY == 0:
                    self.quick.network.load_state_dict(self._state(plain(self.network)))
                if self.step % FRESH_EVERY == 0:
                    self._collect()
                collected = time.monotonic()
                entry = self._train()
                self.step += 1
                now = time.monotonic()
                entry |= {"step": self.step, "seconds": [round(collected - began, 3), round(now - collected, 3)]}
                print(json.dumps(entry), file=log, flush=True)
                if now - saved > SAVE_SECONDS or self.step == self.options.steps:
                    self._save()
                    saved = now

    def _collect(self) -> None:
        image = self.pictures.batch(BEGIN + self.step // FRESH_EVERY, 1, self.options.crop)
        with torch.no_grad():
            self.kept.append((self._shallow(image), teach_targets(self.teacher, image, {LEARNT})[LEARNT]))
        del self.kept[:-KEPT]

    def _shallow(self, image: Tensor) -> Tensor:
        """What the trunk has at relu4_2."""
        x = self.network.normalise(image.float())
        with torch.autocast(self.device.type, torch.bfloat16):
            x = Relu.apply(self.network.first(x))
            for stage in self.network.trunk[:KEPT_STAGES]:
                for convolution in stage:
                    x = Relu.apply(convolution(x))
        return x.bfloat16()

    def _deep(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            for convolution in stage:
                x = Relu.apply(convolution(x))
        return Relu.apply(self.network.read[LEARNT](x))

    def _train(self) -> dict[str, object]:
        rng = np.random.default_rng((self.options.seed, self.step, 2))
        chosen = [self.kept[i] for i in rng.choice(len(self.kept), self.options.batch, replace=False)]
        x, wanted = (torch.cat(part) for part in zip(*chosen, strict=True))
        with torch.autocast(self.device.type, torch.bfloat16):
            found = self._deep(x.contiguous(memory_format=torch.channels_last))
        ((fit, gram),) = errors({LEARNT: found}, {LEARNT: wanted.float() / self.scale}, self.variances).values()
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.rate * schedule(self.step, self.options.steps)
        self.optimiser.zero_grad(set_to_none=True)
        (fit + GRAM_WEIGHT * gram).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.learnt, CLIP)
        if torch.isfinite(norm):
            self.optimiser.step()
        if self.step % AVERAGE_EVERY == 0:
            for name, value in plain(self.network).items():
                self.average[name].lerp_(value, 1 - AVERAGING)
        return {LEARNT: [round(fit.item(), 4), round(gram.item(), 5)]}

    def _state(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """With VGG-19's scale in the readout."""
        state = {name: value.clone() for name, value in weights.items()}
        state[f"read.{LEARNT}.weight"] *= self.scale
        state[f"read.{LEARNT}.bias"] *= self.scale
        return state

    def _save(self) -> None:
        state = {
            "step": self.step, "network": self.network.state_dict(), "average": self.average,
            "optimiser": self.optimiser.state_dict(), "scale": self.scale,
        }  # fmt: skip
        with replacing(self.checkpoint) as part:
            torch.save(state, part)
        with replacing(self.options.out / WEIGHTS) as part:
            save_file(pack(self._state(self.average)), part)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.scale, self.step = state["average"], state["scale"], state["step"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("vgg", "content", "styles", "start", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    DeepDistillation(options).run()


if __name__ == "__main__":
    main()
