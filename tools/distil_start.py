"""Where `distil_features.py` starts from: a network fitted by least squares, and coordinates in which Adam keeps it."""

from collections.abc import Callable, Sequence
from itertools import chain, islice

import torch
import torch.nn.functional as F
from distil_pictures import Pictures
from torch import Tensor
from torch.nn.utils import parametrize

from videonst.perceptual import Vgg19
from videonst.perceptual.compact import Compact

LEARNT = tuple(name for name in Compact.layers if name != "relu1_1")  # which is copied

WHITENING_RIDGE = 1e-3
"""Added to the variances, relative to their mean, before the inputs of a convolution are scaled to variance 1."""

TARGETS = (("pool1", "relu2_1"), ("pool2", "relu3_1"), ("pool3", "pool3", "relu4_1", "relu4_2"))
TARGETS += (("relu4_3", "relu4_4"), ("pool4", "relu5_1"))
"""What the convolutions of the trunk begin as: the best predictions of channels of these layers of VGG-19."""
BEFORE_POOL = {"pool1": "relu1_2", "pool2": "relu2_2", "pool3": "relu3_4", "pool4": "relu4_4"}
BEGIN_BATCHES, BEGIN_BATCH = 28, 8
MOST_POSITIONS = 60_000
"""Positions at which a convolution is fitted."""
RIDGE = 1e-3
"""Added to the diagonal of the normal equations, relative to its mean."""
FIT_ROUNDS = 6


def begin(network: Compact, teacher: Vgg19, scales: dict[str, float], pictures: Pictures, crop: int) -> None:
    """Fits the convolutions one after the other to channels of VGG-19 by least squares: a start far from random."""
    images = [pictures.batch(i, BEGIN_BATCH, crop) for i in range(BEGIN_BATCHES)]
    with torch.no_grad():
        teach = [teach_targets(teacher, image, {*LEARNT, *chain(*TARGETS)}) for image in images]
        now = [F.relu(network.first(network.normalise(x))) for x in images]
        fit_stages(network, 0, now, teach, scales)


def teach_targets(teacher: Vgg19, image: Tensor, aims: set[str]) -> dict[str, Tensor]:
    """VGG-19's activations and pools of these names, in bf16."""
    pools = {pool: layer for pool, layer in BEFORE_POOL.items() if pool in aims}
    taps = teacher(image, (aims | {*pools.values()}) - {*pools})
    taps |= {pool: F.avg_pool2d(taps[layer].float(), 2) for pool, layer in pools.items()}
    return {name: taps[name].bfloat16() for name in aims}


def fit_stages(
    network: Compact, first: int, now: list[Tensor], teach: list[dict[str, Tensor]], scales: dict[str, float]
) -> None:
    """Fits the stages from number `first` on, to which `now` comes in; readouts in units of `scales`."""
    units = {k: torch.stack([t[k].float().square().mean() for t in teach]).mean().sqrt() for k in teach[0]}
    stages = zip(network.trunk, network.stages, TARGETS, strict=True)
    for stage, (_, channels, names), targets in islice(stages, first, None):
        for convolution, name, target in zip(stage, names, targets, strict=True):
            chosen = choose([t[target] for t in teach], channels)
            error = fit(convolution, now, [t[target][:, chosen] / units[target] for t in teach])
            now = [F.relu(convolution(x)) for x in now]
            print(f"{target}: {channels} channels, error {error:.3f} of the variance", flush=True)
            if name:
                error = fit(network.read[name], now, [t[name] / scales[name] for t in teach])
                print(f"reading {name}: error {error:.3f} of the variance", flush=True)


def choose(maps: list[Tensor], count: int) -> Tensor:
    """The channels from which the others follow best (greedy choice of columns)."""
    rows = torch.cat([x.permute(0, 2, 3, 1).flatten(0, 2)[:: max(1, x[:, 0].numel() // 4000)] for x in maps]).float()
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
        ys.append(rows[picked.to(x.device)].float())
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


def whiten(convolutions: Sequence[torch.nn.Conv2d], run: Callable[[], object] | None) -> None:
    """Gives them coordinates measured on what comes in while `run` runs the network; without it, to be loaded."""
    inputs: dict[torch.nn.Conv2d, Tensor] = {}
    hooks = [m.register_forward_pre_hook(lambda m, x: inputs.__setitem__(m, x[0])) for m in convolutions]
    with torch.no_grad():
        if run is not None:
            run()
        for convolution in convolutions:
            size = convolution.kernel_size
            whitened = Whitened(convolution.in_channels, size[0] * size[1])
            if run is not None:
                whitened.measure(inputs[convolution], size, convolution.stride, convolution.padding)
            parametrize.register_parametrization(convolution, "weight", whitened.to(convolution.weight.device))
    for hook in hooks:
        hook.remove()


def plain(network: Compact) -> dict[str, Tensor]:
    """The network's state without parametrisations."""
    state = {f"{n}.{p}": getattr(m, p).detach() for n, m in network.named_modules()
             if isinstance(m, torch.nn.Conv2d) for p in ("weight", "bias")}  # fmt: skip
    return state | {"mean": network.mean, "std": network.std}
