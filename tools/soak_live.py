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
from statistics import median

from live_measure import STEADY_RATE, clip_at_rate, summary

from videonst.bench.machine import describe_machine, resident_mb
from videonst.demo import CLIP
from videonst.live.capture import Capture
from videonst.live.controls import AUTO, Controls
from videonst.live.loop import LiveLoop
from videonst.live.painter import Engines, Painter
from videonst.sources.live import open_recording

MAX_GROWTH_MB = 20.0
"""Of resident memory: the median of the last quarter against the second minute. Medians, because memory goes up and
down by 30 MB with every round of the clip, as decoders come and go."""

MAX_DELAY_RISE = 1.5
"""Delay at the 95th percentile of the last quarter against that of the second."""

MAX_BURST = 15
"""Frames dropped one after the other: half a second."""

STYLE_SECONDS = 10.0
SAMPLE_SECONDS = 1.0
MINUTE = 60.0

START_SECONDS = 5.0
"""Drops before this are those of loading and of finding the quality."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--source", type=Path, default=CLIP)
    parser.add_argument("--model", default=AUTO)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = clip_at_rate(args.source, Path(folder) / "clip.mp4", STEADY_RATE)
        report = {"machine": describe_machine(), "clip": args.source.name, "model": args.model, **soak(clip, args)}
    text = json.dumps(report, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    sys.exit(0 if all(report["holds"].values()) else 1)


def soak(clip: Path, args: argparse.Namespace) -> dict:
    engines = Engines(args.model)
    controls = Controls(engines.style_names)
    minutes: list[dict] = []
    rungs: list[str] = []
    with Capture(open_recording(clip, loop=True)) as capture:
        painter = Painter(engines, controls)
        loop = LiveLoop(capture.box, painter)
        started = time.monotonic()
        style_end = sample_end = started
        minute_end = started + MINUTE
        memory: list[float] = []
        delays: list[float] = []
        drops = drops_before = burst = 0
        while (now := time.monotonic()) < started + MINUTE * args.minutes:
            painted = loop.next(0.1)
            if painted is None:
                continue
            delays.append(loop.delay)
            if now > started + START_SECONDS:
                burst = max(burst, capture.box.drops - drops)
            drops = capture.box.drops
            if [str(painted.rung)] != rungs[-1:]:
                rungs.append(str(painted.rung))
            if now >= style_end:
                controls.step_style(1)
                style_end = now + STYLE_SECONDS
            if now >= sample_end:
                memory.append(resident_mb())
                sample_end = now + SAMPLE_SECONDS
            if now >= minute_end:
                minutes.append(
                    {
                        "resident_mb": median(memory),
                        "resident_peak_mb": max(memory),
                        "rung": rungs[-1],
                        "drops": drops - drops_before,
                        **summary(delays, MINUTE),
                    }
                )
                print(minutes[-1], file=sys.stderr, flush=True)
                memory, delays, drops_before = [], [], drops
                minute_end += MINUTE
    return {"minutes": minutes, "rungs": rungs, "drops": drops, **verdict(minutes, burst)}


def verdict(minutes: list[dict], burst: int) -> dict:
    if len(minutes) < 4:
        return {"longest_burst": burst, "holds": {"drops": burst <= MAX_BURST}}
    quarter = len(minutes) // 4
    growth = median(m["resident_mb"] for m in minutes[-quarter:]) - minutes[1]["resident_mb"]
    early = median(m["delay_p95_ms"] for m in minutes[quarter : 2 * quarter])
    late = median(m["delay_p95_ms"] for m in minutes[-quarter:])
    return {
        "growth_mb": round(growth, 1),
        "delay_p95_ms": {"second_quarter": early, "last_quarter": late},
        "longest_burst": burst,
        "holds": {
            "memory": growth <= MAX_GROWTH_MB,
            "delay": late <= MAX_DELAY_RISE * early,
            "drops": burst <= MAX_BURST,
        },
    }


if __name__ == "__main__":
    main()
