"""A new style for a trained network: only its row of the bank, γ and β, is fitted.

Dumoulin, Shlens, Kudlur: *A Learned Representation for Artistic Style*, ICLR 2017, section 3.2: a network trained on
enough styles takes in another one by its γ and β alone, in a fraction of the steps. The convolutions are frozen here,
so that the other styles stay what they are, bit for bit.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videonst.errors import InputError, VideoNSTError
from videonst.frame import Pixels
from videonst.network import StyleNetwork
from videonst.network.model import PHOTO
from videonst.perceptual import Features
from videonst.perceptual.losses import (
    Statistics,
    content_loss,
    grid_loss,
    pick,
    style_loss,
    style_statistics,
    total_variation_loss,
)
from videonst.training.data import balanced, crop_square, resize_short_side, to_tensor
from videonst.training.recipe import Recipe
from videonst.training.report import draw_preview

STROKE_SIZES = {"small": 320, "medium": 512, "large": 800}
"""Short side to which a painting is brought, pixels: the larger, the bolder its strokes. The shipped styles: 512."""

LEARNING_RATE = 6e-2
"""Peak rate of Adam. A row takes far more than the weights of a network (3e-3)."""
ADAM_BETAS = (0.9, 0.99)
GRADIENT_NORM = 1.0
"""Largest norm of the gradient of a row."""

TRAINING_CROPS, VALIDATION_CROPS = 96, 8
"""Fixed squares of the photographs that are learnt on, and that the score is taken on. Their features are kept."""
ZOOM = (1.0, 1.6)
"""Range of their enlargement, as for the shipped networks."""

TRIAL_STEPS = 10
"""Steps that every start is tried for."""
MIXTURE_SHARPNESS = 8.0
"""How far the mixture that is tried as a start leans to the nearest styles; per loss relative to the nearest."""

EVALUATE_EVERY = 20
"""Steps a style between two scores."""
HOLD = 0.5
"""Share of the budget with the full rate; then it falls on a cosine to 0."""
SETTLED = 0.005
"""Relative gain over `PATIENCE` scores below which a score has settled, and the rate falls early."""
PATIENCE = 6
SETTLING = 0.3
"""What then follows, relative to the work until then."""

REPORT_SECONDS, PREVIEW_SECONDS, CHECKPOINT_SECONDS = 0.5, 5.0, 30.0


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """What decides the result, beside the base, the paintings and the pictures.

    Attributes:
        minutes: time to learn in, all styles together.
        steps: number of steps instead of a time; the result is then the same in every run on the same kind of CPU.
        strength: of the style, 1 as the shipped ones; 2 weighs the painting twice as much against the photograph.
        stroke_size: key of `STROKE_SIZES`.
        seed: of the crops and their order.
        batch, crop: squares a step, and their side in pixels.
        learning_rate: peak rate of Adam.
    """

    minutes: float = 5.0
    steps: int | None = None
    strength: float = 1.0
    stroke_size: str = "medium"
    seed: int = 0
    batch: int = 4
    crop: int = 128
    learning_rate: float = LEARNING_RATE

    def __post_init__(self) -> None:
        if self.stroke_size not in STROKE_SIZES:
            raise InputError(f"unknown stroke size {self.stroke_size!r}; expected {', '.join(STROKE_SIZES)}")
        if not 0 < self.minutes < math.inf:
            raise InputError(f"the time to learn in is {self.minutes:g} minutes; expected more than 0")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"steps is {self.steps}; expected 1 or more")
        if not 0.1 <= self.strength <= 10:
            raise InputError(f"the strength of the style is {self.strength:g}; expected 0.1 to 10")


@dataclass(frozen=True)
class LearnProgress:
    """Where learning stands.

    Attributes:
        step: steps done.
        share: of the budget that is used, 0 to 1.
        seconds: spent so far, those before an interruption included.
        seconds_left: at most; learning stops earlier where the scores settle.
        scores: of each style, the best so far: content loss + weighted style loss on always the same squares. Lower
            is better; nan before the first.
        state: what happens at present: "preparing", "choosing a start", "learning", "settling" or "done".
        features: the perceptual network that the losses look through, "vgg19" or "compact".
    """

    step: int
    share: float
    seconds: float
    seconds_left: float
    scores: dict[str, float]
    state: str
    features: str


class Learner:
    """Fits a row of γ and β for each new style, in a folder: `state.pt`, `log.jsonl`, `preview.png`, `progress.json`.

    A folder that holds the state of the same task is gone on with where `resume` is set. A file `stop` that appears in
    the folder ends the learning early, as if its score had settled.

    Args:
        network: the base; left as it is.
        base: what identifies it, so that a state is not resumed on another.
        paintings: for each new style by name the pictures that it is learnt from, RGB; several make one style.
        photographs: what is repainted while learning, RGB, sides no less than the crop.
        features: perceptual network, as `videonst.perceptual.open_features` gives it.
        folder: made if missing.
        settings: see `LearnSettings`.
        device: "cpu" or "cuda".
        compile: fuse the step with torch.compile (needs a C++ compiler).
        resume: go on with what the folder holds.

    Attributes:
        best: (styles, 2 x channels), the best rows so far; those of the start before any learning.
        step, seconds: of work done.

    Raises:
        InputError: nothing to resume, or the state of another task.
    """

    def __init__(
        self,
        network: StyleNetwork,
        base: str,
        paintings: Mapping[str, Sequence[Pixels]],
        photographs: Sequence[Pixels],
        features: Features,
        folder: Path,
        settings: LearnSettings,
        *,
        device: str = "cpu",
        compile: bool = False,
        resume: bool = False,
    ) -> None:
        self._began = time.monotonic()
        self.settings, self.folder, self.names = settings, folder, list(paintings)
        self._device = torch.device(device)
        self._recipe = Recipe(tier=network.tier, steps=1)
        self._task = {"base": base, "styles": self.names, "settings": asdict(settings) | {"minutes": 0, "steps": 0}}
        self._bank = network.bank.detach().to(self._device)
        self._network = _frozen(network).to(self._device).to(memory_format=torch.channels_last)
        self._features = features.to(self._device, torch.bfloat16)
        self._targets = [self._statistics(pictures) for pictures in paintings.values()]
        rng = np.random.default_rng(settings.seed)
        count = TRAINING_CROPS + VALIDATION_CROPS
        crops = [crop_square(photographs[i % len(photographs)], settings.crop, ZOOM, rng) for i in range(count)]
        order = rng.permutation(count)
        self._crops = torch.cat([to_tensor(crops[i]) for i in order]).to(self._device)
        self._content: Tensor | None = None
        self._losses = torch.compile(self._compute_losses, dynamic=False) if compile else self._compute_losses
        self._shown = [next(iter(pictures)) for pictures in paintings.values()], photographs
        self.step, self.seconds = 0, 0.0
        self._scores = [math.nan] * len(self.names)
        self._settled: float | None = None
        self._history: list[float] = []
        self._start_with(self._bank[PHOTO + 1 :].mean(0).repeat(len(self.names), 1))
        self.best = self._rows.detach().clone()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stop").unlink(missing_ok=True)
        if resume:
            self._resume()
        else:
            (folder / "log.jsonl").unlink(missing_ok=True)
            self._state_file.unlink(missing_ok=True)

    @property
    def started(self) -> bool:
        """There is something to keep: a start was chosen."""
        return not math.isnan(self._scores[0])

    @property
    def resumable(self) -> bool:
        """There is a state to go on with."""
        return self._state_file.exists()

    @property
    def scores(self) -> dict[str, float]:
        """The best of each style, see `LearnProgress`."""
        return dict(zip(self.names, self._scores, strict=True))

    def run(self, report: Callable[[LearnProgress], None] = lambda progress: None) -> None:
        """Learns until the budget is spent or the scores have settled. However it ends, `best` holds what was found,
        and the folder what `resume` needs.

        Args:
            report: called about twice a second, in this thread.

        Raises:
            VideoNSTError: the loss is no number, or the folder cannot be written to.
        """
        self._began -= self.seconds
        self._report = report
        self._told = self._drawn = self._saved = -math.inf
        self._tell("preparing")
        try:
            self._prepare()
            if self.step == 0:
                self._choose_start()
            while self._position() < 1 and not self._finished():
                self._learn_step(self._rate())
                self.step += 1
                if self.step % (EVALUATE_EVERY * math.ceil(len(self.names) / self.settings.batch)) == 0:
                    self._evaluate()
                self._look_after()
            self._evaluate()
        finally:
            self.seconds = time.monotonic() - self._began
            if self.started:
                self._save()
                self._draw()
        self._told = -math.inf
        self._tell("done")

    # --- budget ------------------------------------------------------------------------------------------------------

    def _position(self) -> float:
        """Share of the budget that is spent."""
        if self.settings.steps is not None:
            return self.step / self.settings.steps
        return (time.monotonic() - self._began) / (60 * self.settings.minutes)

    def _end(self) -> float:
        """Where the rate reaches 0."""
        return 1.0 if self._settled is None else min(1.0, self._settled * (1 + SETTLING))

    def _finished(self) -> bool:
        return self._position() >= self._end() or (self.folder / "stop").exists()

    def _rate(self) -> float:
        begin, end = (HOLD if self._settled is None else min(HOLD, self._settled)), self._end()
        if self._settled is not None:
            begin = self._settled
        fallen = min(1.0, max(0.0, (self._position() - begin) / max(end - begin, 1e-9)))
        return self.settings.learning_rate * (1 + math.cos(math.pi * fallen)) / 2

    # --- learning ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _prepare(self) -> None:
        """Features of all squares."""
        if self._content is None:
            layer = self._recipe.content_layer
            pieces = self._crops.split(self.settings.batch)
            self._content = torch.cat([self._features(piece, [layer])[layer] for piece in pieces])

    def _choose_start(self) -> None:
        """The mean of all styles, the nearest one, or a mixture of the nearest: what does best after a few steps."""
        self._told = -math.inf
        self._tell("choosing a start")
        starts = self._starts()
        if self.settings.steps is None:
            trial = TRIAL_STEPS
        else:
            trial = min(TRIAL_STEPS, self.settings.steps // (5 * len(starts)))
        found, scores = [], []
        for start in starts:
            self._start_with(start)
            for step in range(trial):
                self._learn_step(self.settings.learning_rate, step)
                self._tell("choosing a start")
            found.append(self._rows.detach().clone())
            scores.append(self._measure())
        best = torch.tensor(scores).nan_to_num(math.inf).argmin(0).tolist()
        self._start_with(torch.stack([found[b][i] for i, b in enumerate(best)]))
        self.best = self._rows.detach().clone()
        self._scores = [scores[b][i] for i, b in enumerate(best)]
        self._log({"starts": scores, "chosen": best})

    @torch.no_grad()
    def _starts(self) -> list[Tensor]:
        """Candidates, (styles, 2 x channels) each."""
        rows = self._bank[PHOTO + 1 :]
        crops = self._crops[: self.settings.batch]
        losses = torch.empty(len(rows), len(self.names))
        for i, row in enumerate(rows):
            painted = self._paint(crops, row.expand(len(crops), -1))
            found = style_statistics(self._features(painted, self._recipe.style_layers))
            for k, target in enumerate(self._targets):
                losses[i, k] = style_loss(found, target).mean()
        nearest = rows[losses.argmin(0)]
        mean = rows.mean(0).expand_as(nearest)
        closeness = -MIXTURE_SHARPNESS * losses / losses.min(0).values
        mixture = torch.softmax(closeness, 0).to(rows).T @ rows
        return [nearest, mixture, mean] if len(rows) > 1 else [nearest]

    def _start_with(self, rows: Tensor) -> None:
        self._rows = rows.detach().clone().requires_grad_()
        self._optimiser = torch.optim.Adam([self._rows], betas=ADAM_BETAS)

    def _learn_step(self, rate: float, step: int | None = None) -> None:
        """One step of Adam on the rows, on the squares and styles of that step."""
        batch, count = self.settings.batch, TRAINING_CROPS
        first = (self.step if step is None else step) * batch
        crops = [balanced(first + i, count, self.settings.seed) for i in range(batch)]
        slots = [(first + i) % len(self.names) for i in range(batch)]
        loss = self._batch_losses([VALIDATION_CROPS + c for c in crops], slots).mean()
        if not torch.isfinite(loss):
            raise VideoNSTError(f"the loss is {loss.item()} at step {self.step}; learn again with a lower rate")
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        assert self._rows.grad is not None
        # Of each row by itself: styles must not slow each other down.
        norms = self._rows.grad.norm(dim=1, keepdim=True)
        self._rows.grad.mul_((GRADIENT_NORM / norms.clamp(min=1e-9)).clamp(max=1))
        if bool(torch.isfinite(norms).all()):
            self._optimiser.step()

    def _evaluate(self) -> None:
        """Keeps every row that has become better, and sees whether the scores have settled."""
        scores = self._measure()
        for i, score in enumerate(scores):
            if not score >= self._scores[i]:
                self._scores[i] = score
                self.best[i] = self._rows[i].detach()
        self._history.append(sum(self._scores))
        self._log({"step": self.step, "seconds": round(time.monotonic() - self._began, 1), "scores": scores})
        if self._settled is None and len(self._history) > PATIENCE:
            before, now = self._history[-1 - PATIENCE], self._history[-1]
            if before - now < SETTLED * before:
                self._settled = self._position()

    def _measure(self) -> list[float]:
        """The score of every row, on the squares kept for it."""
        batch = self.settings.batch
        scores = []
        for slot in range(len(self.names)):
            losses = [
                self._batch_losses([(k + i) % VALIDATION_CROPS for i in range(batch)], [slot] * batch).detach().mean()
                for k in range(0, VALIDATION_CROPS, batch)
            ]
            scores.append(round(float(torch.stack(losses).mean()), 5))
        return scores

    def _batch_losses(self, crops: Sequence[int], slots: Sequence[int]) -> Tensor:
        assert self._content is not None
        weights = torch.eye(len(self.names), device=self._device)[list(slots)]
        target = pick(self._targets, slots)
        return self._losses(self._crops[list(crops)], self._content[list(crops)], weights @ self._rows, target)

    def _compute_losses(self, crops: Tensor, content: Tensor, rows: Tensor, target: dict[str, Statistics]) -> Tensor:
        """Of each square, (B,): the losses of the recipe for a picture in a style."""
        recipe = self._recipe
        painted = self._paint(crops, rows)
        features = self._features(painted, [*recipe.style_layers, recipe.content_layer])
        kept = content_loss(features[recipe.content_layer], content)
        style = style_loss(style_statistics({name: features[name] for name in recipe.style_layers}), target)
        return (
            recipe.content * kept
            + self.settings.strength * recipe.style * style
            + recipe.total_variation * total_variation_loss(painted)
            + recipe.grid * grid_loss(painted)
        )

    def _paint(self, frames: Tensor, rows: Tensor) -> Tensor:
        """(B, 3, H, W) with a row of γ and β each."""
        with torch.autocast(self._device.type, torch.bfloat16):
            painted = self._network.paint_rows(frames, rows)
        return painted.float()

    @torch.no_grad()
    def _statistics(self, paintings: Sequence[Pixels]) -> dict[str, Statistics]:
        """Of one style: the mean over its pictures."""
        size = STROKE_SIZES[self.settings.stroke_size]
        each = [
            style_statistics(
                self._features(to_tensor(resize_short_side(p, size)).to(self._device), self._recipe.style_layers)
            )
            for p in paintings
        ]
        return {
            name: Statistics(
                torch.stack([s[name].gram for s in each]).mean(0), torch.stack([s[name].mean for s in each]).mean(0)
            )
            for name in each[0]
        }

    # --- what is seen and kept ---------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        self._tell("learning" if self._settled is None else "settling")
        now = time.monotonic()
        if now - self._drawn >= PREVIEW_SECONDS:
            self._draw()
            self._drawn = time.monotonic()
        if now - self._saved >= CHECKPOINT_SECONDS:
            self._save()
            self._saved = time.monotonic()

    def _tell(self, state: str) -> None:
        now = time.monotonic()
        if now - self._told < REPORT_SECONDS:
            return
        self._told = now
        seconds, share = now - self._began, min(1.0, self._position() / self._end())
        if state == "done":
            share, left = 1.0, 0.0
        elif self.settings.steps is None:
            left = max(0.0, 60 * self.settings.minutes * self._end() - seconds)
        else:
            left = seconds / max(share, 1e-3) * (1 - share) if share else math.nan
        progress = LearnProgress(self.step, share, seconds, left, self.scores, state, self._features.name)
        _write(self.folder / "progress.json", json.dumps(_plain(asdict(progress))).encode())
        self._report(progress)

    def _draw(self) -> None:
        paintings, photographs = self._shown
        draw_preview(self._network, self.best, paintings, photographs, self.folder / "preview.png")

    def _log(self, entry: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")

    @property
    def _state_file(self) -> Path:
        return self.folder / "state.pt"

    def _save(self) -> None:
        state = {
            "task": self._task,
            "step": self.step,
            "seconds": time.monotonic() - self._began,
            "rows": self._rows.detach(),
            "best": self.best,
            "scores": self._scores,
            "history": self._history,
            "optimiser": self._optimiser.state_dict(),
        }
        part = self._state_file.with_suffix(".part")
        try:
            torch.save(state, part)
            part.replace(self._state_file)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            part.unlink(missing_ok=True)
            raise VideoNSTError(
                f"cannot write to {self.folder}: {error}; free some space and go on with --resume"
            ) from error

    def _resume(self) -> None:
        if not self.resumable:
            raise InputError(f"there is nothing to resume in {self.folder}; learn without --resume")
        try:
            state = torch.load(self._state_file, map_location=self._device, weights_only=True)
            task = state["task"]
        except Exception as error:  # torch raises a dozen kinds for a foreign or broken file
            raise InputError(f"{self._state_file} is damaged; learn without --resume") from error
        if task != self._task:
            raise InputError(
                f"{self.folder} holds another task (other paintings, base or settings); "
                "give those it was begun with, or learn without --resume"
            )
        self._start_with(state["rows"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.best, self._scores, self._history = state["best"], state["scores"], state["history"]
        self.step, self.seconds = state["step"], state["seconds"]


def _frozen(network: StyleNetwork) -> StyleNetwork:
    return copy.deepcopy(network).requires_grad_(False)


def _plain(value: Any) -> Any:
    """For JSON, which has no nan."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
