"""Live painting for a long time: memory, delay and drops, minute by minute, as docs/benchmarks/live.md reports them.

    python tools/soak_live.py [--minutes 20] [--source CLIP] [--json docs/benchmarks/live-soak.json]

A clip of 640x360 at 30 frames a second is looped in place of a camera, painted with `auto` and the stabiliser, as in
`videonst live --no-window`; every ten seconds the style changes. Exit code 1 where a limit is broken.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from live_measure import STEADY_RATE, clip_at_rate, machine, resident_mb, summary

from videonst.demo import CLIP
from videonst.live.capture import Capture
from videonst.live.controls import AUTO, Controls
from videonst.live.loop import LiveLoop
from videonst.live.painter import Engines, Painter
from videonst.sources.live import open_recording

MAX_GROWTH_MB = 20.0
"""Of resident memory, after the first minute."""

MAX_DELAY_RISE = 1.5
"""Delay at the 95th percentile of the last quarter against that of the second."""

MAX_BURST = 15
"""Frames dropped one after the other: half a second."""

STYLE_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--source", type=Path, default=CLIP)
    parser.add_argument("--model", default=AUTO)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = clip_at_rate(args.source, Path(folder) / "clip.mp4", STEADY_RATE)
        report = {"machine": machine(), "clip": args.source.name, "model": args.model, **soak(clip, args)}
    text = json.dumps(report, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    sys.exit(0 if all(report["holds"].values()) else 1)


def soak(clip: Path, args: argparse.Namespace) -> dict:
    engines = Engines(args.model)
    controls = Controls(engines.style_names)
    delays: list[tuple[float, float]] = []
    minutes: list[dict] = []
    burst = rungs = 0
    rung = ""
    with Capture(open_recording(clip, loop=True)) as capture:
        painter = Painter(engines, controls)
        loop = LiveLoop(capture.box, painter)
        started = time.monotonic()
        minute_end, style_end = started + 60, started + STYLE_SECONDS
        drops = minute_drops = 0
        while (now := time.monotonic()) < started + 60 * args.minutes:
            painted = loop.next(0.1)
            if painted is None:
                continue
            delays.append((time.monotonic() - started, loop.delay))
            burst = max(burst, capture.box.drops - drops)
            drops = capture.box.drops
            if str(painted.rung) != rung:
                rung, rungs = str(painted.rung), rungs + 1
            if now >= style_end:
                controls.step_style(1)
                style_end += STYLE_SECONDS
            if now >= minute_end:
                last = [delay for at, delay in delays if at > now - started - 60]
                minutes.append(
                    {"resident_mb": resident_mb(), "rung": rung, "drops": drops - minute_drops} | summary(last, 60)
                )
                minute_drops = drops
                minute_end += 60
                print(minutes[-1], file=sys.stderr)
    return {
        "minutes": minutes,
        "steps_of_quality": rungs - 1,
        "longest_burst": burst,
        "drops": drops,
        **verdict(minutes, burst),
    }


def verdict(minutes: list[dict], burst: int) -> dict:
    memory = [minute["resident_mb"] for minute in minutes]
    growth = max(memory[1:], default=0) - memory[0] if memory else 0.0
    quarter = max(1, len(minutes) // 4)
    p95 = [minute["delay_p95_ms"] for minute in minutes]
    early, late = (sorted(part)[len(part) // 2] for part in (p95[quarter : 2 * quarter] or p95, p95[-quarter:]))
    return {
        "growth_mb": round(growth, 1),
        "delay_p95_ms": {"second_quarter": early, "last_quarter": late},
        "holds": {
            "memory": growth <= MAX_GROWTH_MB,
            "delay": late <= MAX_DELAY_RISE * early,
            "drops": burst <= MAX_BURST,
        },
    }


if __name__ == "__main__":
    main()
