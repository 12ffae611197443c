"""Kills conversions at random moments, resumes them, and compares the result with one that was never interrupted.

    python tools/kill_resume.py CLIP --kills 50 --out docs/benchmarks/resume.json

CLIP is made small first. Every run is a process of its own, forked to spare the start, ended by SIGKILL. Moments are
uniform over the time that an uninterrupted run takes; every fifth waits for the last segment, so that it hits the
joining. The result must hold the same frames (SHA-256 of the decoded pictures, and their times) and the same packets of
sound and subtitles.
"""

import argparse
import hashlib
import json
import multiprocessing
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
from small_clip import small_clip

from videonst.api import convert
from videonst.sinks import parts as parts_folder

SEGMENT_SECONDS = 2
"""Shorter than usual, so that a short clip has many segments."""

LIMIT_SECONDS = 300
"""For one run; none may take longer."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--style", default="starry_night")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    parts_folder.SEGMENT_SECONDS = SEGMENT_SECONDS
    settings = {"style": arguments.style, "model": arguments.model, "preset": "ultrafast"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = small_clip(arguments.clip, folder / "clip.mp4", width=160, every=3)
        target = folder / "out.mp4"
        started = time.monotonic()
        run(clip, folder / "whole.mp4", settings)
        usual = time.monotonic() - started
        expected = contents(folder / "whole.mp4")
        report: dict[str, Any] = {
            "clip": arguments.clip.name,
            "settings": settings,
            "seconds of a segment": SEGMENT_SECONDS,
            "system": platform.platform(),
            "frames": len(expected["pictures"]),
            "packets of other streams": len(expected["other packets"]),
            "seconds of an uninterrupted run": round(usual, 1),
            "results": Counter(),
            "kills": [],
        }
        segments = last_segment(clip)
        while len(report["kills"]) < arguments.kills:
            moments = []
            for _ in range(rng.choice((1, 1, 2, 3))):
                aimed = (len(report["kills"]) + len(moments)) % 5 == 4
                moment = kill_once(clip, target, settings, usual, segments, aimed, rng)
                if moment is None:  # it was done before
                    break
                moments.append(moment)
                if target.exists():  # killed after its last step but one
                    break
            if not target.exists():
                run(clip, target, settings)
            found = contents(target)
            same = {what: found[what] == expected[what] for what in expected}
            left = sorted({path.name for path in folder.iterdir()} - {"clip.mp4", "whole.mp4", "out.mp4"})
            if moments and moments[-1]["target there"] and left == [".out.mp4.parts"]:
                left = []  # killed between the last two steps: the target is complete, the parts were to go
            result = "identical" if all(same.values()) and not left else f"differs: {same}, left: {left}"
            report["kills"].extend({**moment, "result": result} for moment in moments)
            report["results"][result] += len(moments)
            print(f"{len(report['kills'])}/{arguments.kills} kills: {result}", file=sys.stderr, flush=True)
            target.unlink()
            shutil.rmtree(folder / ".out.mp4.parts", ignore_errors=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "kills"}, indent=1))
    return 0 if set(report["results"]) == {"identical"} else 1


def run(clip: Path, target: Path, settings: dict[str, Any]) -> None:
    process = start(clip, target, settings)
    process.join(timeout=LIMIT_SECONDS)
    if process.exitcode != 0:
        process.kill()
        raise SystemExit(f"the run ended with {process.exitcode}")


def start(clip: Path, target: Path, settings: dict[str, Any]) -> multiprocessing.process.BaseProcess:
    options = {**settings, "resume": not target.name.startswith("whole")}
    process = multiprocessing.get_context("fork").Process(target=convert, args=(clip, target), kwargs=options)
    process.start()
    return process


def kill_once(
    clip: Path, target: Path, settings: dict[str, Any], usual: float, segments: int, aimed: bool, rng: random.Random
) -> dict[str, Any] | None:
    """Where it was killed; None where it ended by itself."""
    parts = target.with_name(f".{target.name}.parts")
    started = time.monotonic()
    wait = rng.uniform(0, usual)
    process = start(clip, target, settings)
    if aimed:
        while process.is_alive() and not (parts / f"{segments:05}.json").exists():
            time.sleep(0.001)
        wait = rng.uniform(0, 0.1)
    process.join(timeout=wait)
    if not process.is_alive():
        if process.exitcode != 0:
            raise SystemExit(f"a run ended with {process.exitcode}")
        return None
    process.kill()
    process.join(timeout=LIMIT_SECONDS)
    return {
        "aimed at joining": aimed,
        "after seconds": round(time.monotonic() - started, 2),
        "segments finished": max(0, len(list(parts.glob("*.json"))) - 1),
        "target there": target.exists(),
    }


def last_segment(clip: Path) -> int:
    """Number of the last segment, from the time of the last frame."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        return int(max(p.pts * stream.time_base for p in container.demux(stream) if p.size) / SEGMENT_SECONDS)


def contents(path: Path) -> dict[str, list[Any]]:
    """What is in a file, in words that can be compared."""
    with av.open(str(path)) as container:
        pictures = [
            (str(frame.pts * frame.time_base), hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest())
            for frame in container.decode(video=0)
        ]
    with av.open(str(path)) as container:
        others = [stream for stream in container.streams if stream.type in ("audio", "subtitle")]
        packets = [
            (packet.stream_index, packet.pts, packet.dts, hashlib.sha256(bytes(packet)).hexdigest())
            for packet in container.demux(others)
            if packet.size
        ]
    return {"pictures": pictures, "other packets": packets}


if __name__ == "__main__":
    sys.exit(main())
