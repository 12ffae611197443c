"""A new style for a trained network: only its row of the bank, γ and β, is fitted.

Dumoulin, Shlens, Kudlur: *A Learned Representation for Artistic Style*, ICLR 2017, section 3.2: a network trained on
enough styles takes in another one by its γ and β alone, in a fraction of the steps. The convolutions are frozen here,
so that the other styles stay what they are, bit for bit.
"""

import copy
import hashlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videonst.errors import VideoNSTError
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
from videonst.training.budget import STROKE_SIZES, Budget, LearnSettings
from videonst.training.data import balanced, crop_square, resize_short_side, to_tensor
from videonst.training.learning_folder import LearningFolder
from videonst.training.recipe import Recipe
from videonst.training.report import draw_preview

log = logging.getLogger(__name__)

ADAM_BETAS = (0.9, 0.99)
GRADIENT_NORM = 1.0
"""Largest norm of the gradient of a row."""

TRAINING_CROPS, VALIDATION_CROPS = 64, 8
"""Fixed squares of the photographs that are learnt on, and that the score is taken on. Their features are kept."""
ZOOM = (1.0, 1.6)
"""Range of their enlargement, as for the shipped networks."""

START_CROPS = 2
"""Squares on which the styles that are there are compared with the new one."""
TRIAL_STEPS = 10
"""Steps that every start is tried for."""
MIXTURE_SHARPNESS = 8.0
"""How far the mixture that is tried as a start leans to the nearest styles; per loss relative to the nearest."""

EVALUATE_EVERY = 40
"""Steps a style between two scores."""
LEAST_RATE = 2.0**-6
"""Of the rate: so many halvings after losses that are no number and it counts as hopeless."""
REPORT_SECONDS, PREVIEW_SECONDS, CHECKPOINT_SECONDS = 0.5, 5.0, 30.0


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
    """Fits a row of γ and β for each new style, in a folder (see `LearningFolder`).

    A folder that holds the state of the same task is gone on with where `resume` is set. A file `stop` that appears in
    the folder ends the learning early, as if its score had settled. After a loss that is no number it goes on from the
    best rows, at half the rate.

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
        budget: what is spent.

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
        self.budget = Budget(settings)
        self.settings, self.names = settings, list(paintings)
        self._device = torch.device(device)
        self._recipe = Recipe(tier=network.tier, steps=1)
        self._bank = network.bank.detach().to(self._device)
        frozen = copy.deepcopy(network).requires_grad_(False)
        self._network = frozen.to(self._device).to(memory_format=torch.channels_last)
        self._features = features.to(self._device, torch.bfloat16)
        self._targets = [self._statistics(pictures) for pictures in paintings.values()]
        rng = np.random.default_rng(settings.seed)
        count = TRAINING_CROPS + VALIDATION_CROPS
        crops = [crop_square(photographs[i % len(photographs)], settings.crop, ZOOM, rng) for i in range(count)]
        order = rng.permutation(count)
        self._crops = torch.cat([to_tensor(crops[i]) for i in order]).to(self._device)
        given = hashlib.sha256(b"".join(p.tobytes() for p in itertools.chain(*paintings.values(), crops))).hexdigest()
        self._task: dict[str, Any] = {"base": base, "styles": self.names, "pictures": given, "features": features.name}
        self._task["settings"] = asdict(settings) | {"minutes": 0, "steps": 0}  # these may change
        self._content: Tensor | None = None
        self._losses = torch.compile(self._compute_losses, dynamic=False) if compile else self._compute_losses
        self._shown = [next(iter(pictures)) for pictures in paintings.values()], photographs
        self._scores = [math.nan] * len(self.names)
        self._start_with(self._bank[PHOTO + 1 :].mean(0).repeat(len(self.names), 1))
        self.best = self._rows.detach().clone()
        self._slower = 1.0
        self._folder = LearningFolder(folder, resume=resume)
        if resume:
            self._resume()

    @property
    def started(self) -> bool:
        """There is something to keep: a start was chosen."""
        return not math.isnan(self._scores[0])

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
            VideoNSTError: the loss is no number whatever the rate, or the folder cannot be written to.
        """
        self._report = report
        self._told = self._drawn = self._saved = -math.inf
        self._tell("preparing")
        try:
            self._prepare()
            if self.budget.step == 0:
                self._choose_start()
            every = EVALUATE_EVERY * math.ceil(len(self.names) / self.settings.batch)
            while self.budget.share < 1 and not self._folder.stop_asked:
                self._learn_step(self.budget.rate, self.budget.step)
                self.budget.step += 1
                if self.budget.step % every == 0:
                    self._evaluate()
                self._look_after()
            self._evaluate()
        finally:
            if self.started:
                self._save()
        self._draw()
        self._tell("done", at_once=True)

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
        self._tell("choosing a start", at_once=True)
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
        self._folder.log({"starts": scores, "chosen": best})

    @torch.no_grad()
    def _starts(self) -> list[Tensor]:
        """Candidates, (styles, 2 x channels) each."""
        rows = self._bank[PHOTO + 1 :]
        crops = self._crops[:START_CROPS]
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

    def _learn_step(self, rate: float, step: int) -> None:
        """One step of Adam on the rows, on the squares and styles of that step."""
        batch, count = self.settings.batch, TRAINING_CROPS
        first = step * batch
        crops = [balanced(first + i, count, self.settings.seed) for i in range(batch)]
        slots = [(first + i) % len(self.names) for i in range(batch)]
        loss = self._batch_losses([VALIDATION_CROPS + c for c in crops], slots).mean()
        self._optimiser.param_groups[0]["lr"] = rate * self._slower
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        assert self._rows.grad is not None
        # Of each row by itself: styles must not slow each other down.
        norms = self._rows.grad.norm(dim=1, keepdim=True)
        self._rows.grad.mul_((GRADIENT_NORM / norms.clamp(min=1e-9)).clamp(max=1))
        if bool(torch.isfinite(loss)) and bool(torch.isfinite(norms).all()):
            self._optimiser.step()
        else:
            self._step_back(step)

    def _step_back(self, step: int) -> None:
        self._slower /= 2
        if self._slower < LEAST_RATE:
            raise VideoNSTError(
                f"the loss is no number at step {step}, however small the steps; learn with another "
                "--strength-of-style, or on other pictures (--content)"
            )
        log.warning("the loss is no number at step %d; going on from the best so far at half the rate", step)
        self._start_with(self.best)

    def _evaluate(self) -> None:
        """Keeps every row that has become better, and sees whether the scores have settled."""
        scores = self._measure()
        for i, score in enumerate(scores):
            if math.isnan(self._scores[i]) or score < self._scores[i]:
                self._scores[i] = score
                self.best[i] = self._rows[i].detach()
        self.budget.record(sum(self._scores))
        self._folder.log({"step": self.budget.step, "seconds": round(self.budget.seconds, 1), "scores": scores})

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
        self._tell("learning" if self.budget.settled is None else "settling")
        now = time.monotonic()
        if now - self._drawn >= PREVIEW_SECONDS:
            self._draw()
            self._drawn = time.monotonic()
        if now - self._saved >= CHECKPOINT_SECONDS:
            self._save()
            self._saved = time.monotonic()

    def _tell(self, state: str, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._told < REPORT_SECONDS:
            return
        self._told = now
        budget, done = self.budget, state == "done"
        progress = LearnProgress(
            budget.step,
            1.0 if done else min(1.0, budget.share),
            budget.seconds,
            0.0 if done else budget.seconds_left,
            self.scores,
            state,
            self._features.name,
        )
        self._folder.tell(asdict(progress))
        self._report(progress)

    def _draw(self) -> None:
        paintings, photographs = self._shown
        with self._folder.writing():
            draw_preview(self._network, self.best, paintings, photographs, self._folder.preview)

    def _save(self) -> None:
        state = {
            "budget": self.budget.state(),
            "rows": self._rows.detach(),
            "best": self.best,
            "scores": self._scores,
            "slower": self._slower,
            "optimiser": self._optimiser.state_dict(),
        }
        self._folder.save(self._task, state)

    def _resume(self) -> None:
        state = self._folder.load(self._task, self._device)
        self._start_with(state["rows"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.best, self._scores, self._slower = state["best"], state["scores"], state["slower"]
        self.budget.resume(state["budget"])
