"""Converts thousands of damaged copies of real clips, and looks for what must not be: hangs, crashes, partial files.

    python tools/fuzz.py CLIP... --cases 2000 --out docs/benchmarks/fuzz.json

Every clip is cut to its first packets, as it is and packed into other containers, then damaged: truncated, bits
flipped, a block zeroed, cut out or filled with noise. Each case is converted with `--engine none` in a worker process
that may take `LIMIT_SECONDS`. Good ends are a complete target that decodes to as many frames as were reported, or one
line and no target. What a case is follows from its number, so that `--only N` does it again.
"""

import argparse
import itertools
import json
import logging
import math
import multiprocessing
import platform
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
from small_clip import small_clip

LIMIT_SECONDS = 30
KEPT_PACKETS = 8
"""Of video; with B-frames, and still so few that the whole run takes minutes."""

CONTAINERS = (".mp4", ".mkv", ".ts")
DAMAGES = ("truncated", "bits flipped", "zeroed", "cut out", "noise")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bases = list(shortened(arguments.clips, Path(name)))
        numbers = [arguments.only] if arguments.only is not None else list(range(arguments.cases))
        started = time.monotonic()
        cases = run_all(numbers, bases, Path(name), arguments.workers)
    bad = [case for case in cases if case["end"] not in GOOD_ENDS]
    seconds = sorted(case["seconds"] for case in cases)
    report = {
        "cases": len(cases),
        "clips": [path.name for path in bases],
        "system": platform.platform(),
        "PyAV": av.__version__,
        "seconds in all": round(time.monotonic() - started),
        "slowest case, seconds": seconds[-1],
        "median case, seconds": seconds[len(seconds) // 2],
        "ends": Counter(case["end"] for case in cases),
        "ends by damage": {
            damage: Counter(case["end"] for case in cases if case["damage"] == damage) for damage in DAMAGES
        },
        "converted, with a report of damage": sum(case["end"] == "converted" and case["lost"] > 0 for case in cases),
        "bad": bad,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 1 if bad else 0


GOOD_ENDS = ("converted", "refused", "failed")
"""`refused`: an InputError before work; `failed`: a VideoNSTError on the way; both with one line and no target."""


def shortened(clips: list[Path], folder: Path) -> Iterator[Path]:
    """The first packets of every clip, large ones made small, in every container that takes its streams."""
    for clip, suffix in itertools.product([small(clip, folder) for clip in clips], CONTAINERS):
        path = folder / f"{clip.stem}{suffix}"
        try:
            with av.open(str(clip)) as source, av.open(str(path), "w") as output:
                kept = [s for s in source.streams if s.type in ("video", "audio")]
                copies = {s.index: output.add_stream_from_template(s) for s in kept}
                count = 0
                for packet in source.demux(kept):
                    count += packet.stream.type == "video"
                    if count > KEPT_PACKETS:
                        break
                    if packet.size:
                        packet.stream = copies[packet.stream_index]
                        output.mux(packet)
        except (ValueError, av.FFmpegError):  # a codec that this container does not know
            path.unlink(missing_ok=True)
        else:
            yield path


def small(clip: Path, folder: Path) -> Path:
    """The clip itself, or a second of it at less than its size: damage is the same there, and converts faster."""
    with av.open(str(clip)) as container:
        if container.streams.video[0].width <= LARGEST_WIDTH:
            return clip
    (folder / "small").mkdir(exist_ok=True)
    return small_clip(clip, folder / "small" / clip.name, width=LARGEST_WIDTH // 2, seconds=1)


LARGEST_WIDTH = 640
"""Pixels."""


def damaged(content: bytes, damage: str, rng: random.Random) -> bytes:
    if damage == "truncated":
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    if damage == "bits flipped":
        for _ in range(int(math.exp(rng.uniform(0, math.log(1000))))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    # Half of the blocks near the beginning, where headers are.
    first = rng.randrange(min(len(changed), 2000) if rng.random() < 0.5 else len(changed))
    size = int(math.exp(rng.uniform(0, math.log(20_000))))
    block = {"zeroed": bytes(size), "cut out": b"", "noise": rng.randbytes(size)}[damage]
    changed[first : first + size] = block
    return bytes(changed)


def run_all(numbers: list[int], bases: list[Path], folder: Path, workers: int) -> list[dict[str, Any]]:
    """Every case in one of the workers, each of which is replaced when it hangs or dies."""
    waiting = iter(numbers)
    lock = threading.Lock()
    cases: list[dict[str, Any]] = []

    def attend(number_of_worker: int) -> None:
        worker: Worker | None = None
        own = folder / f"worker_{number_of_worker}"
        own.mkdir()
        while True:
            with lock:
                number = next(waiting, None)
                if len(cases) % 100 == 0:
                    print(f"{len(cases)}/{len(numbers)}", file=sys.stderr, flush=True)
            if number is None:
                break
            worker = worker or Worker(bases, own)
            case = worker.do(number)
            if case["end"] in ("hung", "crashed"):
                worker = None
            with lock:
                cases.append(case)
        if worker:
            worker.end()

    threads = [threading.Thread(target=attend, args=(number,), daemon=True) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return cases


class Worker:
    """A process that converts one case after the other."""

    def __init__(self, bases: list[Path], folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, bases, folder), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it has imported everything

    def do(self, number: int) -> dict[str, Any]:
        started = time.monotonic()
        self._pipe.send(number)
        try:
            if self._pipe.poll(LIMIT_SECONDS):
                case: dict[str, Any] = self._pipe.recv()
                return case
            end = "hung"
        except EOFError:
            end = "crashed"
        self.end()
        taken = round(time.monotonic() - started, 3)
        return {"number": number, "damage": "", "end": end, "lost": 0, "seconds": taken}

    def end(self) -> None:
        self._process.kill()
        self._process.join(timeout=10)


def work(pipe: Connection, bases: list[Path], folder: Path) -> None:
    from videonst.api import load

    av.logging.set_level(av.logging.PANIC)
    logging.disable(logging.CRITICAL)
    model = load(engine="none")
    pipe.send("ready")
    while True:
        number = pipe.recv()
        pipe.send(convert_one(number, bases, folder, model))


def convert_one(number: int, bases: list[Path], folder: Path, model: Any) -> dict[str, Any]:
    from videonst.api import convert
    from videonst.errors import InputError, VideoNSTError

    rng = random.Random(number)
    base, damage = rng.choice(bases), DAMAGES[number % len(DAMAGES)]
    source = folder / f"damaged{base.suffix}"
    source.write_bytes(damaged(base.read_bytes(), damage, rng))
    target = folder / "out.mkv"
    case: dict[str, Any] = {"number": number, "clip": base.name, "damage": damage, "lost": 0}
    started = time.monotonic()
    try:
        done = convert(source, target, model=model, preset="ultrafast", overwrite=True)
    except InputError as error:
        case |= {"end": "refused", "line": str(error)}
    except VideoNSTError as error:
        case |= {"end": "failed", "line": str(error)}
    except Exception:
        case |= {"end": "unhandled", "trace": traceback.format_exc()}
    else:
        case |= {"end": "converted", "frames": done.frames_done, "lost": done.frames_lost}
        if frames_in(target) != done.frames_done:
            case |= {"end": "incomplete", "found": frames_in(target)}
    case["seconds"] = round(time.monotonic() - started, 3)
    left = sorted(path.name for path in folder.iterdir() if path not in (source, target))
    if left or (case["end"] in ("refused", "failed") and target.exists()):
        case |= {"end": "left something", "left": left}
    if "\n" in case.get("line", ""):
        case |= {"end": "more than a line"}
    target.unlink(missing_ok=True)
    source.unlink()
    for path in left:
        shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()
    return case


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


if __name__ == "__main__":
    sys.exit(main())
