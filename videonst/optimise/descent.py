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
        super().__init__("the loss is no number: lower --style-weight or --content-weight, or choose other --features")
        self.best = best


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, step / WARM_UP)
    return warm * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * step / steps)) / 2)


def lbfgs(start: Tensor, evaluate: Evaluate, steps: int, report: Report) -> Tensor:
    """Limited-memory BFGS without line search, one evaluation a step, as in Gatys et al.'s own code. Gives the picture
    of the least loss. After a loss that is no number it goes on from there, at half the step and without history."""
    best, least, rate = start, math.inf, 1.0
    image, optimiser = _lbfgs_from(start, rate)
    step = 0
    while step < steps:
        seen: list[Losses] = []

        def closure() -> Tensor:
            optimiser.zero_grad()  # noqa: B023 - called within the step
            total, losses = evaluate(image)  # noqa: B023
            total.backward()
            seen.append(losses)  # noqa: B023
            return total

        before = image.detach().clone()
        optimiser.step(closure)
        losses = seen[0]
        if not math.isfinite(losses.total) or not bool(torch.isfinite(image).all()):
            rate /= 2
            if rate < LEAST_RATE:
                raise DivergedError(best.clamp(0, 1) if step else None)
            image, optimiser = _lbfgs_from(best, rate)
            continue
        step += 1
        if losses.total < least:
            best, least = before, losses.total
        report(step, losses, functools.partial(best.clamp, 0, 1))
    return best.clamp(0, 1)


LBFGS_HISTORY = 100
"""Steps that the estimate of the curvature is made of; torch's default, and that of Gatys et al.'s code."""


def _lbfgs_from(start: Tensor, rate: float) -> tuple[Tensor, torch.optim.LBFGS]:
    image = start.clone(memory_format=torch.contiguous_format).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [image], lr=rate, max_iter=1, history_size=LBFGS_HISTORY, tolerance_change=0, tolerance_grad=0
    )
    return image, optimiser


METHODS = {"adam": adam, "lbfgs": lbfgs}
