"""Speed of the shipped tiers against the layouts that are in use, in one run, as docs/benchmarks/speed.md reports it.

    python tools/compare_layouts.py [--size 640x360] [--rounds 12] [--json docs/benchmarks/layouts.json]

The others are rebuilt from their papers and public code, structure only, with random weights: Johnson et al. 2016 as in
PyTorch's examples (fast_neural_style), Dumoulin et al. 2017 as in Magenta (tier `reference`), ReCoNet (Gao et al. 2018,
48/96/192 channels). All are ONNX graphs of the same kind, uint8 frames in and out, opened alike; they take turns, and
the ratios are those of the medians. Needs the [train] extra.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measuring import checked_size
from torch import nn

from videonst.bench.json_values import write_json
from videonst.bench.machine import describe_machine
from videonst.engines.providers import open_session
from videonst.export.onnx import OPSET, build_graph
from videonst.live.meter import percentile
from videonst.models import find_model
from videonst.network import StyleNetwork

OURS = ("tiny", "tiny.int8", "fast", "fast.int8", "full")
WARM_UP = 2


class ReflectConv(nn.Module):
    """Convolution with reflected borders, instance normalisation with its own scale, and ReLU where wanted."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, norm: bool = True, relu: bool = True
    ):
        super().__init__()
        self.conv = nn.Sequential(nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inputs, outputs, kernel, stride))
        self.norm = nn.InstanceNorm2d(outputs, affine=True) if norm else nn.Identity()
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x):
        return self.relu(self.norm(self.conv(x)))


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(ReflectConv(channels, channels, 3), ReflectConv(channels, channels, 3, relu=False))

    def forward(self, x):
        return x + self.body(x)


class Up(nn.Module):
    """Nearest-neighbour x2, then a convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = ReflectConv(inputs, outputs, 3)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def image_network(widths: tuple[int, int, int], blocks: int) -> nn.Module:
    """9x9, two of stride 2, residual blocks, two up, 9x9: Johnson's with widths 32, 64, 128; ReCoNet's with others."""
    a, b, c = widths
    return nn.Sequential(
        ReflectConv(3, a, 9), ReflectConv(a, b, 3, 2), ReflectConv(b, c, 3, 2),
        *(Residual(c) for _ in range(blocks)),
        Up(c, b), Up(b, a), ReflectConv(a, 3, 9, norm=False, relu=False),
    )  # fmt: skip


class Bytes(nn.Module):
    """With the frame's own bytes at both ends."""

    def __init__(self, network: nn.Module, squash: bool):
        super().__init__()
        self.network, self.squash = network, squash

    def forward(self, frame):
        y = self.network(frame.permute(0, 3, 1, 2).float())
        y = (torch.tanh(y) + 1) * 127.5 if self.squash else y
        return (y + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def export(network: nn.Module, path: Path) -> Path:
    side = torch.export.Dim("h4", min=16), torch.export.Dim("w4", min=16)
    torch.onnx.export(
        network.eval(), (torch.zeros(1, 64, 80, 3, dtype=torch.uint8),), path,
        input_names=["frame"], output_names=["stylized"], dynamic_shapes=({1: 4 * side[0], 2: 4 * side[1]},),
        opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    return path


def layouts(folder: Path) -> dict[str, Path]:
    """Model files of the others. Sides must be multiples of 4."""
    torch.manual_seed(0)
    dumoulin = folder / "dumoulin.onnx"
    dumoulin.write_bytes(build_graph(StyleNetwork("reference", 1), "fp32", holding=False).SerializeToString())
    return {
        "Johnson 2016": export(Bytes(image_network((32, 64, 128), 5), squash=False), folder / "johnson.onnx"),
        "Dumoulin 2017": dumoulin,
        "ReCoNet 2018": export(Bytes(image_network((48, 96, 192), 4), squash=True), folder / "reconet.onnx"),
    }


def measure(models: dict[str, Path], size: tuple[int, int], rounds: int) -> dict[str, list[float]]:
    """Seconds of single frames; in every round a frame of each of the slow ones and three of each of the quick."""
    sessions = {name: open_session(path, "cpu") for name, path in models.items()}
    width, height = size
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    feeds = {}
    for name, session in sessions.items():
        slots = next((i.shape[1] for i in session.get_inputs() if i.name == "style_weights"), 0)
        styles = {"style_weights": np.eye(1, slots, 1, dtype=np.float32)} if slots else {}
        feeds[name] = {"frame": frame} | styles
    found: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(WARM_UP + rounds):
        for name, session in sessions.items():
            for _ in range(3 if name in OURS[:-1] else 1):
                began = time.perf_counter()
                session.run(["stylized"], feeds[name])
                if number >= WARM_UP:
                    found[name].append(time.perf_counter() - began)
    return found


def summarise(found: dict[str, list[float]]) -> list[dict]:
    medians = {name: float(np.median(seconds)) for name, seconds in found.items()}
    return [
        {
            "layout": name,
            "ms": round(1000 * medians[name], 2),
            "p95": round(1000 * percentile(found[name], 95), 2),
            "fps": round(1 / medians[name], 1),
            **{f"times_{of}": round(medians[of] / medians[name], 2) for of in medians if of not in OURS},
        }
        for name in found
    ]


def table(rows: list[dict]) -> str:
    keys = list(rows[0])
    lines = [keys, ["---"] * len(keys), *([str(row[key]) for key in keys] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    size = checked_size(parser, args, multiple=4, least=16)
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}: expected 1 or more")
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        models = {name: find_model(name) for name in OURS} | layouts(Path(folder))
        rows = summarise(measure(models, size, args.rounds))
    print(table(rows))
    if args.json:
        write_json(args.json, {"machine": machine, "size": args.size, "rows": rows})


if __name__ == "__main__":
    main()
