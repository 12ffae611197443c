"""Minimising a loss over the pixels of a picture."""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from videonst.errors import VideoNSTError
from videonst.optimise.objective import Losses

LEARNING_RATE = 0.05
"""Of Adam, on a [0, 1] scale. 0.02, as Crowson takes, reaches a loss in half as many steps more."""
BETAS = (0.9, 0.99)
WARM_UP = 10
"""Steps in which the learning rate grows; Adam's first steps know nothing of the gradient's size."""
LAST_RATE = 0.1
"""Share of the learning rate that is left at the end."""
AVERAGING = 0.9
"""Share of the mean of iterates that stays at each step."""

LEAST_RATE = 2.0**-10
"""Of the learning rate: so many halvings after steps that went wrong and it counts as hopeless."""

BLOW_UP = 10.0
"""Of the loss at the start: what is more counts as gone wrong, since L-BFGS has no line search here."""

LEAST_START = 1e-3
"""Loss that counts as that of the start where it is less: what is as wanted already can only grow."""

Evaluate = Callable[[Tensor], tuple[Tensor, Losses]]
Report = Callable[[int, Losses, Callable[[], Tensor]], None]
"""Called after every step with its number from 1, the losses there, and what gives the picture (1, 3, H, W) of now."""


def adam(start: Tensor, evaluate: Evaluate, steps: int, report: Report) -> Tensor:
    """Adam with a learning rate that warms up and falls, and the mean of its iterates (Crowson).

    A step after which the loss is no number is taken back, and the learning rate halved.

    Args:
        start: (1, 3, H, W) in [0, 1].
        evaluate: the loss.
        steps: to do.
        report: see `Report`.

    Returns:
        The mean of the last iterates, (1, 3, H, W) in [0, 1].

    Raises:
        VideoNSTError: the loss is no number whatever the step.
    """
    image = start.clone()
    first, second, mean = (torch.zeros_like(image) for _ in range(3))
    weight, rate, before = 0.0, 1.0, image.clone()
    step = 0
    while step < steps:
        image.requires_grad_()
        total, losses = evaluate(image)
        (gradient,) = torch.autograd.grad(total, image)
        image = image.detach()
        if not (math.isfinite(losses.total) and bool(torch.isfinite(gradient).all())):
            rate /= 2
            if rate < LEAST_RATE:
                raise DivergedError(mean / weight if weight else None)
            image = before.clone()
            first, second = torch.zeros_like(first), torch.zeros_like(second)
            continue
        before = image.clone()
        step += 1
        first.lerp_(gradient, 1 - BETAS[0])
        second.lerp_(gradient.square(), 1 - BETAS[1])
        scaled = (first / (1 - BETAS[0] ** step)) / ((second / (1 - BETAS[1] ** step)).sqrt() + 1e-12)
        image = (image - LEARNING_RATE * rate * _schedule(step, steps) * scaled).clamp(0, 1)
        weight = AVERAGING * weight + 1 - AVERAGING
        mean = AVERAGING * mean + (1 - AVERAGING) * image
        report(step, losses, functools.partial(torch.div, mean, weight))
    return mean / weight


class DivergedError(VideoNSTError):
    """The loss is no number, however small the steps.

    Attributes:
        best: the picture of before, (1, 3, H, W); None where no step was good.
    """

    def __init__(self, best: Tensor | None) -> None:
        super().__init__(
            "the loss is no number or only grows: lower --style-weight or --content-weight, or choose other --features"
        )
        self.best = best


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, step / WARM_UP)
    return warm * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * step / steps)) / 2)


def lbfgs(
    start: Tensor, evaluate: Evaluate, steps: int, report: Report, history: int = 100, spectrum: float = 0.0
) -> Tensor:
    """Limited-memory BFGS without line search, one evaluation a step, as in Gatys et al.'s own code. Gives the picture
    of the least loss. After a loss that is no number it goes on from there, at half the step and without history.

    Args:
        start, evaluate, steps, report: as for `adam`.
        history: steps that the estimate of the curvature is made of.
        spectrum: coarse structure moves more easily than fine, by the frequency to the power of minus this (Olah,
            Mordvintsev, Schubert: *Feature Visualization*, 2017, decorrelate with 1). 0 for pixels as they are.
    """
    best, least, first, rate = start, math.inf, math.inf, 1.0
    to_picture, to_variable = _decorrelated(start, spectrum)

    def begin(picture: Tensor) -> tuple[Tensor, torch.optim.LBFGS]:
        variable = to_variable(picture).contiguous().clone().requires_grad_()
        return variable, torch.optim.LBFGS(
            [variable], lr=rate, max_iter=1, history_size=history, tolerance_change=0, tolerance_grad=0
        )

    variable, optimiser = begin(start)
    step = 0
    while step < steps:
        seen: list[tuple[Tensor, Losses]] = []

        def closure() -> Tensor:
            optimiser.zero_grad()  # noqa: B023 - called within the step
            image = to_picture(variable)  # noqa: B023
            total, losses = evaluate(image)
            total.backward()
            seen.append((image.detach(), losses))  # noqa: B023
            return total

        optimiser.step(closure)
        image, losses = seen[0]
        if step == 0 and math.isfinite(losses.total):
            first = max(losses.total, LEAST_START)
        if not losses.total < BLOW_UP * first or not bool(torch.isfinite(variable).all()):
            rate /= 2
            if rate < LEAST_RATE:
                raise DivergedError(best.clamp(0, 1) if step else None)
            variable, optimiser = begin(best)
            continue
        step += 1
        if losses.total < least:
            best, least = image, losses.total
        report(step, losses, functools.partial(best.clamp, 0, 1))
    return best.clamp(0, 1)


def _decorrelated(picture: Tensor, spectrum: float) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """From a variable of the picture's shape to a picture, and back."""
    if spectrum == 0:
        return torch.clone, torch.clone
    height, width = picture.shape[2:]
    rows = torch.fft.fftfreq(height, device=picture.device)[:, None]
    columns = torch.fft.rfftfreq(width, device=picture.device)
    # 1 at an eighth of the sampling rate, so that the first steps are of the size that they have without.
    scale = (torch.hypot(rows, columns).clamp(min=1 / max(height, width)) * 8) ** -spectrum

    def filtered(values: Tensor, by: Tensor) -> Tensor:
        result: Tensor = torch.fft.irfft2(torch.fft.rfft2(values) * by, s=(height, width))
        return result

    return lambda variable: filtered(variable, scale), lambda image: filtered(image, 1 / scale)


METHODS: dict[str, Callable[..., Tensor]] = {"adam": adam, "lbfgs": lbfgs}
