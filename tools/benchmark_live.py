"""Frames a second and delay of live painting per model and working size, as docs/benchmarks/live.md reports them.

    python tools/benchmark_live.py [--seconds 8] [--source CLIP] [--json docs/benchmarks/live.json]

A clip of 640x360 at 30 frames a second in place of a camera, the stabiliser at its default. Each pinned quality runs
for `--seconds` after one to warm up, then `auto` for three times as long, of which the last third counts. And start-up:
a process from its start to its end right after the first painted frame, five times.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from live_measure import SIZE, STEADY_RATE, clip_at_rate, summary

from videonst.bench.machine import describe_machine
from videonst.demo import CLIP
from videonst.live.capture import Capture
from videonst.live.controls import AUTO, Controls
from videonst.live.loop import LiveLoop
from videonst.live.painter import Engines, Painter
from videonst.sources.live import open_recording

PINNED = (
    *(("tiny", lines) for lines in (360, 288, 240, 192, 144)),
    *(("fast", lines) for lines in (360, 288, 240)),
    ("full", 360),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--source", type=Path, default=CLIP)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        clip = clip_at_rate(args.source, Path(folder) / "clip.mp4", STEADY_RATE)
        engines = Engines()
        rows = [measure(engines, clip, model, lines, args.seconds, 1.0) for model, lines in PINNED]
        rows.append(measure(engines, clip, AUTO, None, args.seconds, 2 * args.seconds))
        rows.append(measure(engines, clip, AUTO, None, args.seconds, 2 * args.seconds, steady=0.0))
        start_up = measure_start_up(clip)
    report = {"machine": before, "size": "x".join(map(str, SIZE)), "rows": rows, "start_up_s": start_up}
    print(table(report))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def measure(
    engines: Engines, clip: Path, model: str, lines: int | None, seconds: float, before: float, **settings: float
) -> dict:
    """One quality, measured for `seconds` after `before`."""
    controls = Controls(engines.style_names, model=model, lines=lines, **settings)
    delays: list[float] = []
    with Capture(open_recording(clip, loop=True)) as capture:
        painter = Painter(engines, controls)
        loop = LiveLoop(capture.box, painter)
        while loop.next(0.1) is None:  # the first frame loads the model
            pass
        began = time.monotonic() + before
        drops = 0
        while (now := time.monotonic()) < began + seconds:
            if loop.next(0.1) is None:
                continue
            if now >= began:
                delays.append(loop.delay)
            else:
                drops = capture.box.drops
        return {
            "model": model,
            "painted_with": str(painter.rung),
            "steady": controls.read().steady,
            **summary(delays, seconds),
            "drops": capture.box.drops - drops,
        }


def table(report: dict) -> str:
    """The report as Markdown."""
    lines = ["| asked | painted with | steady | fps | delay p50, ms | p95, ms | dropped |", "| --- " * 7 + "|"]
    keys = ("model", "painted_with", "steady", "fps", "delay_p50_ms", "delay_p95_ms", "drops")
    for row in report["rows"]:
        lines.append("| " + " | ".join(str(row[key]) for key in keys) + " |")
    times = ", ".join(map(str, report["start_up_s"]))
    return "\n".join([*lines, "", f"Start-up, seconds: {times}. Load: {report['machine']['load_1_minute']}."])


def measure_start_up(clip: Path) -> list[float]:
    """Seconds from the start of the process to its end after the first painted frame, five times."""
    command = [sys.executable, "-m", "videonst", "live", "--no-window", "--source", clip, "--seconds", "0"]
    times = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            subprocess.run(
                [*map(str, command), "--record", str(Path(folder) / "out.mp4")],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=True,
            )  # fmt: skip
            times.append(round(time.monotonic() - began, 2))
    return sorted(times)


if __name__ == "__main__":
    main()
