"""Trains a style network on photographs and paintings (Johnson et al. 2016; Dumoulin et al. 2017)."""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from videonst.atomic import replacing
from videonst.errors import InputError, VideoNSTError
from videonst.network import StyleNetwork, widen
from videonst.network.model import PHOTO
from videonst.perceptual.features import Features
from videonst.perceptual.losses import (
    Statistics,
    content_loss,
    grid_loss,
    pick,
    style_loss,
    style_statistics,
    total_variation_loss,
)
from videonst.perceptual.temporal import temporal_feature_loss, temporal_loss, warping_error
from videonst.training.data import Painting, Photographs, balanced, read_painting, to_tensor
from videonst.training.motion import Motion, move
from videonst.training.recipe import Recipe, Stage, make_recipe
from videonst.training.report import draw_curves, draw_samples

ADAM_BETAS = (0.9, 0.99)

WIDENING_NOISE = 0.1
"""Noise on the copies when a narrower network is the start, relative to the weights."""

EVALUATE_EVERY = 100
"""Steps between measurements of the warping error, in recipes with a temporal stage."""
EVALUATED_PHOTOS = 2
"""Photographs on which it is measured, in every style."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step. `content`, `style` and `pixel` are the batch means, unweighted.

    `warping_error` is the last measurement on synthetic motion, None before the first and where nothing moves.
    """

    step: int
    steps: int
    loss: float
    content: float
    style: float
    pixel: float
    seconds: float
    warping_error: float | None = None


def pick_device(name: str) -> str:
    """Resolves "auto" to "cuda" where it works, else "cpu"; checks any other.

    Raises:
        InputError: cuda was asked for and does not work here.
    """
    if name not in {"auto", "cuda", "cpu"}:
        raise InputError(f"unknown device {name!r} for torch; expected auto, cuda or cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("cuda does not work here: torch sees no NVIDIA GPU; use --device cpu")
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


class Trainer:
    """A training run in a folder: `checkpoint.pt`, `log.jsonl`, `samples.png`, `curves.png`.

    A folder that holds a checkpoint of the same recipe and styles is resumed, to the trajectory that an
    uninterrupted run would have had.

    Args:
        recipe: hyper-parameters.
        paintings: the styles, in slot order from 1.
        content: folder of photographs.
        folder: where the run's files go.
        features: perceptual network; the recipe of the run records which.
        device: "cpu" or "cuda".
        start: network to start from, of the same tier or a narrower one that can grow; ignored when resuming.
        compile: fuse the step with torch.compile (needs a C++ compiler; two minutes once, then up to 1.6x faster).

    Raises:
        InputError: unusable paintings, photographs or start; a checkpoint of another recipe or made with other
            features; features that lack a layer of the recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        paintings: list[Painting],
        content: Path,
        folder: Path,
        features: Features,
        *,
        device: str = "cpu",
        start: StyleNetwork | None = None,
        compile: bool = False,
    ) -> None:
        self.recipe, self.paintings, self.folder = _with_features(recipe, features), paintings, folder
        self.device = torch.device(device)
        self.photographs = Photographs(content, recipe.seed)
        torch.manual_seed(recipe.seed)
        self.network = StyleNetwork(recipe.tier, len(paintings)).to(self.device)
        self.network.to(memory_format=torch.channels_last)
        if start is not None:
            self._warm_start(start)
        self.features = features.to(self.device, torch.bfloat16)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=recipe.learning_rate, betas=ADAM_BETAS)
        self.targets = self._painting_statistics()
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._resume()
        self._losses = torch.compile(self._compute_losses, dynamic=False) if compile else self._compute_losses

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def run(self, report: Callable[[Progress], None] = lambda progress: None, *, every_seconds: float = 240) -> None:
        """Trains to the end of the recipe.

        Args:
            report: called after every step.
            every_seconds: time between checkpoints; samples and curves are drawn with them.

        Raises:
            VideoNSTError: the loss is not a number, or the disk is full. The last checkpoint stays usable.
        """
        saved = time.monotonic()
        moves = any(stage.moves for stage in self.recipe.stages)
        error = None
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            while self.step < self.recipe.steps:
                began = time.monotonic()
                entry = self._train_step()
                self.step += 1
                seconds = time.monotonic() - began
                if moves and (self.step % EVALUATE_EVERY == 0 or self.step == self.recipe.steps):
                    entry["warping_error"] = error = round(self.warping_error(), 5)
                print(json.dumps({"step": self.step, "seconds": round(seconds, 4)} | entry), file=log)
                if time.monotonic() - saved > every_seconds or self.step == self.recipe.steps:
                    log.flush()
                    self._save()
                    saved = time.monotonic()
                mean = {key: float(torch.tensor(entry[key]).mean()) for key in ("content", "style", "pixel")}
                mean |= {"seconds": seconds}
                report(Progress(self.step, self.recipe.steps, entry["loss"], **mean, warping_error=error))

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, then cosine."""
        recipe = self.recipe
        if step < recipe.warmup:
            return recipe.learning_rate * (step + 1) / recipe.warmup
        progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
        return recipe.learning_rate * (recipe.final + (1 - recipe.final) * 0.5 * (1 + math.cos(math.pi * progress)))

    def _train_step(self) -> dict[str, Any]:
        recipe, slots = self.recipe, len(self.paintings) + 1
        stage = recipe.stage(self.step)
        photos = self.photographs.batch(self.step, recipe.batch, stage.crop, recipe.zoom)
        photos = photos.to(self.device, memory_format=torch.channels_last)
        styles = [balanced(self.step * recipe.batch + i, slots, recipe.seed) for i in range(recipe.batch)]
        # The photo slot has no painting: it borrows a target, and its style loss counts nothing.
        targets = [pick(t, [max(0, s - 1) for s in styles]) for t in (self.targets[k] for k in stage.scales)]
        slot = torch.tensor(styles, device=self.device)
        motion = move(photos, (recipe.seed, self.step)) if stage.moves else None
        parts = self._losses(photos, slot, targets, stage, motion)
        loss = parts[0]
        if not torch.isfinite(loss):
            raise VideoNSTError(
                f"the loss is {loss.item()} at step {self.step}; train again with a lower learning rate than "
                f"{recipe.learning_rate:g}, or with --start {self.checkpoint}"
            )
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        finite = math.isfinite(norm)
        if finite:  # a flat photograph can overflow: normalising it divides by nearly nothing
            self.optimiser.step()
        names = ("content", "style", "pixel", "temporal", "temporal_features")[: len(parts) - 1]
        values = {n: [round(v, 5) for v in p.tolist()] for n, p in zip(names, parts[1:], strict=True)}
        step = {"loss": round(loss.item(), 5), "gradient_norm": round(norm.item(), 4) if finite else None}
        return step | {"slots": styles} | values

    def _compute_losses(
        self,
        photos: Tensor,
        slots: Tensor,
        targets: list[dict[str, Statistics]],
        stage: Stage,
        motion: Motion | None,
    ) -> tuple[Tensor, ...]:
        """Total loss, and of each picture the content, style and pixel loss; with motion its two losses as well."""
        recipe = self.recipe
        weights = F.one_hot(slots, len(self.paintings) + 1).float()
        with torch.no_grad():
            content = self.features(photos, [recipe.content_layer])[recipe.content_layer]
        moving: tuple[Tensor, ...] = ()
        if motion is None:
            painted, _ = self._paint(photos, weights)
        else:
            both, bottleneck = self._paint(torch.cat((photos, motion.second)), weights.repeat(2, 1))
            painted, second = both.chunk(2)
            first_features, second_features = bottleneck.chunk(2)
            moving = (
                temporal_loss(second, painted, motion.flow, motion.valid, motion.brightening),
                temporal_feature_loss(second_features, first_features, motion.flow, motion.valid),
            )
        is_photo = (slots == PHOTO).float()
        style = torch.zeros_like(is_photo)
        kept = style
        for scale, target in zip(stage.scales, targets, strict=True):
            layers = [*recipe.style_layers, recipe.content_layer] if scale == 1 else recipe.style_layers
            features = self.features(F.avg_pool2d(painted, scale) if scale > 1 else painted, layers)
            if scale == 1:
                kept = content_loss(features[recipe.content_layer], content)
                features = {name: features[name] for name in recipe.style_layers}
            style = style + style_loss(style_statistics(features), target) / len(stage.scales)
        pixel = (painted - photos).square().mean((1, 2, 3)) * is_photo
        each = (
            recipe.content * kept
            + recipe.style * style * (1 - is_photo)
            + recipe.total_variation * total_variation_loss(painted)
            + recipe.grid * grid_loss(painted)
            + recipe.pixel * pixel
        )
        for weight, loss in zip((stage.temporal, stage.temporal_features), moving, strict=False):
            each = each + weight * loss
        return each.mean(), *(loss.detach() for loss in (kept, style, pixel, *moving))

    def _paint(self, frames: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The results, and the features at the bottleneck: what enters the first upsampling."""
        taken: list[Tensor] = []
        hook = self.network.up[0].register_forward_pre_hook(lambda _conv, inputs: taken.append(inputs[0]))
        with torch.autocast(self.device.type, torch.bfloat16):
            painted = self.network.paint(frames, weights)
        hook.remove()
        return painted.float(), taken[0][:, :, ::2, ::2]

    @torch.no_grad()
    def warping_error(self) -> float:
        """Mean over styles of `perceptual.temporal.warping_error` on always the same photographs and motion."""
        crop = self.recipe.stages[-1].crop
        photos = self.photographs.batch(0, EVALUATED_PHOTOS, crop, (1.0, 1.0)).to(self.device)
        motion = move(photos, (self.recipe.seed, 0, 1))  # a step draws from two numbers: none draws this
        errors = []
        for weights in torch.eye(len(self.paintings) + 1, device=self.device)[PHOTO + 1 :]:
            rows = weights.expand(EVALUATED_PHOTOS, -1)
            first, second = (self.network(frames, rows) for frames in (photos, motion.second))
            errors.append(warping_error(second, first, motion.flow, motion.valid).mean())
        return float(torch.stack(errors).mean())

    def _painting_statistics(self) -> dict[int, list[dict[str, Statistics]]]:
        """For each scale, the statistics of every painting shrunk by it."""
        recipe = self.recipe
        crop = max(s.crop for s in recipe.stages)
        scales = sorted({k for s in recipe.stages for k in s.scales})
        found: dict[int, list[dict[str, Statistics]]] = {k: [] for k in scales}
        for painting in self.paintings:
            image = to_tensor(read_painting(painting, recipe.painting_size, crop)).to(self.device)
            for scale in scales:
                with torch.no_grad():
                    features = self.features(F.avg_pool2d(image, scale), recipe.style_layers)
                    found[scale].append(style_statistics(features))
        return found

    def _warm_start(self, start: StyleNetwork) -> None:
        """Takes over convolutions, widened if the tier is another, and the bank where the styles are as many."""
        if start.tier != self.recipe.tier:
            start = widen(start, self.recipe.tier, noise=WIDENING_NOISE, seed=self.recipe.seed)
        bank, slots = start.bank.detach(), len(self.network.bank)
        if len(bank) != slots:
            bank = torch.cat([bank[: PHOTO + 1], bank[PHOTO + 1 :].mean(0, keepdim=True).repeat(slots - 1, 1)])
        self.network.load_state_dict(start.state_dict() | {"bank": bank})

    def _save(self) -> None:
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "recipe": self.recipe.to_dict(),
            "styles": [
                {key: getattr(p, key) for key in ("name", "title", "artist", "year", "licence")} for p in self.paintings
            ],
        }
        try:
            with replacing(self.checkpoint) as part:
                torch.save(state, part)
            draw_samples(self.network, self.photographs.paths, self.paintings, self.folder / "samples.png")
            draw_curves(self.folder / "log.jsonl", [p.name for p in self.paintings], self.folder / "curves.png")
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            raise VideoNSTError(f"cannot write to {self.folder}: {error}; free some space and run again") from error

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        names = [style["name"] for style in state["styles"]]
        made = make_recipe({"features": "vgg19"} | state["recipe"])  # what there was before recipes said it
        if made.features != self.recipe.features:
            raise InputError(
                f"{self.checkpoint} was made with features {made.features}, not {self.recipe.features}; "
                f"go on with --features {made.features}, or take another folder"
            )
        if made != self.recipe or names != [p.name for p in self.paintings]:
            raise InputError(
                f"{self.checkpoint} belongs to another recipe or other styles; "
                "give the recipe it was made with, or another folder"
            )
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        self._trim_log()

    def _trim_log(self) -> None:
        """Drops log lines after the checkpoint: those steps will run again."""
        path = self.folder / "log.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()[: self.step]
            path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _with_features(recipe: Recipe, features: Features) -> Recipe:
    if recipe.features not in {"auto", features.name}:
        raise InputError(f"the recipe wants features {recipe.features}, not {features.name}")
    lacking = [n for n in (*recipe.style_layers, recipe.content_layer) if n not in features.layers]
    if lacking:
        raise InputError(
            f"features {features.name} lack {', '.join(lacking)}; they have {', '.join(features.layers)}: "
            "change the layers of the recipe, or train with --features vgg19"
        )
    return dataclasses.replace(recipe, features=features.name)
