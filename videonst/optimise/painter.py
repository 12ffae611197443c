"""One picture, coarse to fine."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from videonst.engines.colour import keep_colour
from videonst.errors import InputError
from videonst.frame import Pixels
from videonst.optimise import descent
from videonst.optimise.memory import LEAST_SIDE, check_memory, explained
from videonst.optimise.objective import Features, Held, Losses, Objective
from videonst.optimise.paintings import Paintings, check_mask
from videonst.optimise.presets import Preset
from videonst.resize import scaled
from videonst.styles import StyleMix
from videonst.temporal.flow import Plane
from videonst.training.data import to_tensor

log = logging.getLogger(__name__)

LEAST_COARSE_SIDE = 256
"""Pixels of the short side, below which a coarser scale is left out: it makes strokes bolder, but loses content that
the finer one needs steps to find again."""


@dataclass(frozen=True)
class Progress:
    """Where an optimisation is.

    Attributes:
        step, steps: of this picture, over all scales.
        losses: at the step.
        seconds_left: of this picture; None before the first steps.
        width, height: of the scale at work.
        picture: gives the picture of now, RGB uint8, at the size of the scale, its colours kept where that is asked.
        full_size: (width, height) of the picture when it is done.
    """

    step: int
    steps: int
    losses: Losses
    seconds_left: float | None
    width: int
    height: int
    picture: Callable[[], Pixels]
    full_size: tuple[int, int]


Watch = Callable[[Progress], None]


class Painter:
    """Optimises pictures.

    Args:
        features, layers: the perceptual network, and what it can give.
        paintings: the styles.
        preset: how.
        device: of torch.
        half: the features are computed in bfloat16.
        labels: regions of every picture, (H, W), see `read_masks`.
        memory: bytes that may be used; None takes what the machine has.
        watch: called after every step.
    """

    def __init__(
        self,
        features: Features,
        layers: Sequence[str],
        paintings: Paintings,
        preset: Preset,
        *,
        device: str = "cpu",
        half: bool = False,
        labels: Pixels | None = None,
        memory: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.preset, self.device, self._half = preset, device, half
        self._features, self._layers, self._paintings = features, layers, paintings
        self._labels, self._memory, self._watch = labels, memory, watch
        self._regions = 1 if labels is None else len(np.unique(labels))

    def check(self, width: int, height: int) -> None:
        """
        Raises:
            InputError: pictures of this size cannot be painted: too small, more than the memory holds, or of other
            proportions than the mask.
        """
        if min(width, height) < LEAST_SIDE:
            raise InputError(f"the frame is {width}x{height}; expected sides of {LEAST_SIDE} pixels or more")
        if self._labels is not None:
            check_mask(self._labels, width, height, "the content")
        check_memory(
            width,
            height,
            self._memory,
            half=self._half,
            history=self.preset.history if self.preset.method == "lbfgs" else 0,
            regions=self._regions,
            device=self.device,
        )

    def paint(
        self,
        photo: Pixels,
        mix: StyleMix,
        beginning: Pixels,
        *,
        steps: Sequence[int],
        held: Sequence[tuple[Pixels, Plane]] = (),
    ) -> Pixels:
        """The picture repainted.

        Args:
            photo: RGB, uint8, (H, W, 3).
            mix: styles among the paintings, and how strongly: the style's weight grows with the strength.
            beginning: where to start, of the same shape.
            steps: at each scale, coarse to fine.
            held: earlier results at the place of now, and how far each pixel is to stay so, (H, W) in [0, 1].

        Raises:
            Stopped: Ctrl-C after the first step; it holds the best so far.
            InputError, VideoNSTError: as `check`; out of memory; the loss is no number from the first step on.
        """
        height, width = photo.shape[:2]
        self.check(width, height)
        plan = _plan(width, height, steps)
        clock = _Clock([(size[0] * size[1], n) for size, n in plan])
        image = self._tensor(scaled(beginning, plan[0][0]))
        latest: list[Callable[[], Tensor]] = []
        try:
            with explained(width, height):
                for size, count in plan:
                    objective = self._objective(photo, size, mix, held)
                    small = scaled(photo, size) if mix.keep_colour else None
                    report = self._reporter(clock, latest, size, (width, height), small)
                    image = self._descend(_resized(image, size), objective, count, report, clock)
        except KeyboardInterrupt as interruption:
            if not latest:
                raise
            raise Stopped(_pixels(_resized(latest[-1](), (width, height)))) from interruption
        return _pixels(image)

    def _descend(
        self, image: Tensor, objective: Objective, steps: int, report: descent.Report, clock: "_Clock"
    ) -> Tensor:
        """One scale."""
        try:
            return descent.METHODS[self.preset.method](image, objective, steps, report, **self.preset.of_method)
        except descent.DivergedError as error:
            if not clock.step:
                raise
            log.warning("stopped at step %d of %d: %s; the best so far is kept", clock.step, clock.steps, error)
            return image if error.best is None else error.best

    def _reporter(
        self,
        clock: "_Clock",
        latest: list[Callable[[], Tensor]],
        size: tuple[int, int],
        full_size: tuple[int, int],
        colours: Pixels | None,
    ) -> descent.Report:
        """What is told of the steps at one scale: leaves in `latest` what gives the picture of now. `colours` are to be
        kept in what is shown."""

        def report(step: int, losses: Losses, current: Callable[[], Tensor]) -> None:
            latest[:] = [current]
            left = clock.tick()
            if self._watch:
                self._watch(Progress(clock.step, clock.steps, losses, left, *size, picture, full_size))

        def picture() -> Pixels:
            shown = _pixels(latest[0]())
            return shown if colours is None else keep_colour(shown, colours)

        return report

    def losses(self, photo: Pixels, mix: StyleMix, results: Sequence[Pixels]) -> list[Losses]:
        """Of pictures that are there already, of the same shape as `photo`."""
        objective = self._objective(photo, (photo.shape[1], photo.shape[0]), mix, ())
        with torch.no_grad():
            return [objective(self._tensor(result))[1] for result in results]

    def _objective(
        self, photo: Pixels, size: tuple[int, int], mix: StyleMix, held: Sequence[tuple[Pixels, Plane]]
    ) -> Objective:
        labels = None
        if self._labels is not None:
            labels = _nearest(self._labels, size)
        regions = [
            replace(region, mask=None if region.mask is None else region.mask.to(self.device))
            for region in self._paintings.regions(mix, size[0] * size[1], labels)
        ]
        preset = replace(self.preset, style_weight=self.preset.style_weight * mix.strength)
        before = [
            Held(
                self._tensor(scaled(picture, size)),
                _resized(torch.from_numpy(np.ascontiguousarray(weight, np.float32))[None, None], size).to(self.device),
            )
            for picture, weight in held
        ]
        return Objective(self._features, self._layers, preset, self._tensor(scaled(photo, size)), regions, before)

    def _tensor(self, pixels: Pixels) -> Tensor:
        return to_tensor(pixels).to(self.device)


class Stopped(KeyboardInterrupt):
    """Ctrl-C while a picture was optimised.

    Attributes:
        best: the picture so far, RGB uint8.
    """

    def __init__(self, best: Pixels) -> None:
        super().__init__()
        self.best = best


class _Clock:
    """Time left over scales, of which a step takes time as its pixels."""

    def __init__(self, plan: Sequence[tuple[int, int]]) -> None:
        self._costs = [area for area, count in plan for _ in range(count)]
        self.step, self.steps = 0, len(self._costs)
        self._started: float | None = None
        self._done = 0

    def tick(self) -> float | None:
        """One step more is done; seconds left."""
        self._done += self._costs[min(self.step, self.steps - 1)]
        self.step += 1
        now = time.monotonic()
        if self._started is None:  # the first step also warms up
            self._started, self._done = now, 0
            return None
        return (now - self._started) / max(self._done, 1) * sum(self._costs[self.step :])


def _plan(width: int, height: int, steps: Sequence[int]) -> list[tuple[tuple[int, int], int]]:
    """Size and steps of each scale, coarse to fine; the steps of those left out go to the coarsest that is not."""
    scales = [(round(width / 2**i), round(height / 2**i)) for i in reversed(range(len(steps)))]
    left_out = sum(min(size) < LEAST_COARSE_SIDE for size in scales[:-1])
    kept = [sum(steps[: left_out + 1]), *steps[left_out + 1 :]]
    return list(zip(scales[left_out:], kept, strict=True))


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """To (width, height): antialiased where it shrinks."""
    if image.shape[3] == size[0] and image.shape[2] == size[1]:
        return image
    return F.interpolate(
        image, (size[1], size[0]), mode="bicubic", antialias=image.shape[2] > size[1], align_corners=False
    ).clamp(0, 1)


def _nearest(labels: Pixels, size: tuple[int, int]) -> Pixels:
    height, width = labels.shape
    rows = np.arange(size[1]) * height // size[1]
    columns = np.arange(size[0]) * width // size[0]
    return cast(Pixels, labels[rows[:, None], columns])


def _pixels(image: Tensor) -> Pixels:
    values = (image[0].permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return cast(Pixels, np.ascontiguousarray(values.numpy()))
