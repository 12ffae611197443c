"""Speed and memory on this machine's CPU, as docs/benchmarks/first.md reports them.

    python tools/benchmark.py [--clip CLIP] [--rounds 30] [--json docs/benchmarks/first.json]

1. Frames per second of the tiers against Dumoulin's layout (`reference`, random weights) at 640x360, pre- and
   postprocessing included, alternating in one run, as ratios of medians.
2. Rate of `convert` over the rate of the engine alone, on a real clip.
3. Peak memory of `convert` on the clip and on the clip ten times over, each in a process of its own.

Needs the [train] extra, which exports the reference layout.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

import videonst
from videonst.demo import CLIP
from videonst.engines.metadata import StyleInfo
from videonst.engines.onnx import OnnxEngine
from videonst.frame import Frame
from videonst.models import list_models
from videonst.sinks import open_sink
from videonst.sources import open_source
from videonst.styles import StyleMix

SIZE = (360, 640)
TIERS = ("full", "fast", "tiny", "fast.int8", "tiny.int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    report = {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "onnxruntime": version("onnxruntime-gpu"),
            "opencv": version("opencv-python"),
            "av": version("av"),
        }
    }
    with tempfile.TemporaryDirectory() as folder:
        report["tiers_640x360"] = compare_tiers(Path(folder), args.rounds)
        report["convert"] = compare_convert(Path(folder), args.clip)
        report["memory"] = compare_memory(Path(folder), args.clip)
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def processor() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return names[0] if names else platform.processor()


def compare_tiers(folder: Path, rounds: int) -> dict:
    from videonst.export import export_onnx
    from videonst.network import StyleNetwork

    export_onnx(StyleNetwork("reference", 1), folder / "reference.onnx", styles=[StyleInfo(name="random")])
    installed = {m.name for m in list_models()}
    engines = {t: OnnxEngine(t, "cpu") for t in TIERS if t in installed}
    engines["reference"] = OnnxEngine(folder / "reference.onnx", "cpu")
    frame = Frame(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    mixes = {name: StyleMix.parse(engine.description.styles[0].name) for name, engine in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for index in range(rounds + 2):
        for name, engine in engines.items():
            for _ in range(1 if name in ("reference", "full") else 3):
                began = time.perf_counter()
                engine.stylize(frame, mixes[name])
                if index >= 2:  # the first rounds warm up
                    times[name].append(time.perf_counter() - began)
    medians = {name: float(np.median(t)) for name, t in times.items()}
    return {
        name: {
            "median_ms": round(1000 * median, 2),
            "p95_ms": round(1000 * float(np.percentile(times[name], 95)), 2),
            "fps": round(1 / median, 1),
            "times_reference": round(medians["reference"] / median, 2),
        }
        for name, median in medians.items()
    }


def compare_convert(folder: Path, clip: Path) -> dict:
    rows = {}
    for tier in ("tiny", "fast"):
        model = videonst.load(tier, device="cpu")
        style = model.styles[0]
        with open_source(clip) as source:
            frames = [f for _, f in zip(range(60), source, strict=False)]
        model.stylize(frames[0].pixels, style)
        began = time.perf_counter()
        for frame in frames:
            model.stylize(frame.pixels, style)
        engine = len(frames) / (time.perf_counter() - began)
        done = videonst.convert(clip, folder / f"{tier}.mp4", style, model=model)
        height, width = frames[0].pixels.shape[:2]
        rows[tier] = {
            "size": f"{width}x{height}",
            "engine_fps": round(engine, 1),
            "convert_fps": round(done.frames_per_second, 1),
            "ratio": round(done.frames_per_second / engine, 2),
        }
    return rows


def compare_memory(folder: Path, clip: Path) -> dict:
    long = folder / "long.mkv"
    repeat(clip, long, 10)
    return {
        f"peak_MB_{name}": peak(path, folder / f"{name}.mp4") for name, path in (("once", clip), ("ten_times", long))
    }


def repeat(clip: Path, target: Path, times: int) -> None:
    """The pictures of `clip`, `times` over, without sound."""
    offset = 0
    with open_sink(target, preset="ultrafast") as sink:
        for _ in range(times):
            with open_source(clip) as source:
                for frame in source:
                    sink.write(replace(frame, pts=frame.pts + offset))
            offset += frame.pts + frame.duration


def peak(clip: Path, target: Path) -> float:
    code = (
        "import sys, videonst; videonst.convert(*sys.argv[1:], 'great_wave', model='tiny', device='cpu');"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )  # not ru_maxrss, which a process takes over from the one that started it
    done = subprocess.run([sys.executable, "-c", code, clip, target], capture_output=True, text=True, check=True)
    return round(int(done.stdout) / 1024, 1)


if __name__ == "__main__":
    main()
