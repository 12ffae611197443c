"""Measures the optimise engine: docs/benchmarks/offline.md.

    python tools/benchmark_offline.py reference picture film memory sheets [--work DIR] [--paintings great_wave]

Every part keeps what it has done in DIR (default: offline-benchmark) and goes on from there when it is run again;
`report_offline.py` writes the page.
Photographs, paintings and VGG-19 come from the data folder: VIDEONST_DATA, else ../shared/data. Needs extra [train].

Times are CPU seconds of the process, so that other work on the machine matters less. Losses are those of `gatys2016`
(fp32, VGG-19 with average pooling), whatever the picture was made with.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import torch

import videonst
from videonst.atomic import replacing
from videonst.bench.scenes import read_picture, sintel_scenes
from videonst.frame import Frame
from videonst.optimise import PRESETS, OptimiseEngine
from videonst.perceptual import Vgg19, open_features
from videonst.resize import scaled
from videonst.sources import open_source
from videonst.styles import StyleMix
from videonst.temporal.flow import DisFlow
from videonst.temporal.metrics import Motion, estimated_motion, sharpness, warping_error

DATA = Path(os.environ.get("VIDEONST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
VGG = DATA / "vgg19-features.safetensors"

PICTURE_PAINTING = "starry_night"
PICTURE_SIZE = (512, 384)
SMALL_PAINTINGS = ("great_wave", "udnie")
SMALL_SIZE = (256, 192)
FILM_PAINTINGS = ("starry_night",)
FILM_WIDTH = 192
FILM_FRAMES = 30
MEMORY_SIZES = ("640x360", "1280x720", "1920x1080")
SHEET_PAINTINGS = (
    "starry_night", "great_wave", "the_scream", "udnie", "composition_vii", "the_kiss", "water_lilies", "shipwreck",
)  # fmt: skip
SHEET_PHOTOS = ("03.jpg", "06.jpg", "10.jpg", "20.jpg")
SHEET_SIDE = 192
SHEET_STEPS = 60
"""Fewer than those of `good`: a sheet of 64 pictures is many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "one-size"])
    parser.add_argument("--work", type=Path, default=Path("offline-benchmark"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--features", nargs="+", default=["vgg19", "compact"])
    parser.add_argument("--paintings", nargs="+", help="only these of reference and picture, such as great_wave")
    parser.add_argument("--photos", type=int, default=len(SHEET_PHOTOS), help="only the first N of the sheets")
    parser.add_argument("--clips", nargs="+", help="only these of film, such as alley_1 juggle")
    parser.add_argument("--size", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    if args.parts == ["one-size"]:
        one_size(args.size, args.features[0], args.threads)
        return
    for part in args.parts:
        PARTS[part](args)


def painting(name: str) -> Path:
    return next((DATA / "styles").glob(f"{name}.*"))


def photograph(size: tuple[int, int]) -> np.ndarray:
    """A face: the middle of the first frame of a 1080p clip, 4:3."""
    with open_source(DATA / "video" / "talking_1080p.mp4") as source:
        pixels = next(iter(source)).pixels
    return scaled(np.ascontiguousarray(pixels[:, 240:1680]), size)


def network(name: str):
    return Vgg19(VGG) if name == "vgg19" else open_features(name)


def judge(style: Path) -> OptimiseEngine:
    """Its painter gives the losses of `gatys2016`."""
    return OptimiseEngine(str(style), "gatys2016", features=Vgg19(VGG), device="cpu")


def losses(of: OptimiseEngine, style: Path, photo: np.ndarray, result: np.ndarray) -> dict:
    return asdict(of._painter.losses(photo, StyleMix(((str(style), 1.0),)), [result])[0])


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes())


def keep(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)


def jobs(only: list[str] | None = None) -> list[tuple[str, tuple[int, int]]]:
    found = [(PICTURE_PAINTING, PICTURE_SIZE), *((name, SMALL_SIZE) for name in SMALL_PAINTINGS)]
    return [job for job in found if only is None or job[0] in only]


def reference(args: argparse.Namespace) -> None:
    """`gatys2016`, 500 steps of L-BFGS; a checkpoint every 25."""
    for name, size in jobs(args.paintings):
        folder = args.work / f"reference-{name}-{size[0]}"
        folder.mkdir(exist_ok=True)
        photo, style = photograph(size), painting(name)
        engine = judge(style)
        objective = engine._painter._objective(photo, size, StyleMix(((str(style), 1.0),)), ())
        image = engine._painter._tensor(photo).contiguous().requires_grad_()
        optimiser = torch.optim.LBFGS([image], max_iter=1, tolerance_change=0, tolerance_grad=0)
        curve, state = folder / "curve.json", folder / "state.pt"
        rows: list[dict] = []
        if state.exists():
            stored = torch.load(state)
            image.data, rows = stored["image"], stored["rows"]
            optimiser.load_state_dict(stored["optimiser"])
        started = time.process_time() - (rows[-1]["cpu"] if rows else 0)
        while len(rows) < PRESETS["gatys2016"].steps[0]:
            seen = []

            def closure():
                optimiser.zero_grad()  # noqa: B023
                total, found = objective(image)  # noqa: B023
                total.backward()
                seen.append(found)  # noqa: B023
                return total

            optimiser.step(closure)
            rows.append(asdict(seen[0]) | {"step": len(rows) + 1, "cpu": time.process_time() - started})
            if len(rows) % 25 == 0:
                with replacing(state) as part:
                    torch.save({"image": image.data, "optimiser": optimiser.state_dict(), "rows": rows}, part)
                keep(curve, rows)
                values = (image.data[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
                save(folder / "result.png", values)
                print(name, size, len(rows), f"{rows[-1]['total']:.4f}", f"{rows[-1]['cpu']:.0f} s", flush=True)
        # While it runs pixels may leave [0, 1]; what counts is the picture that can be shown.
        keep(folder / "shown.json", losses(engine, style, photo, read_picture(folder / "result.png")))


def picture(args: argparse.Namespace) -> None:
    """`good` on each network: the curve of CPU seconds and true losses."""
    for features in args.features:
        for name, size in jobs(args.paintings):
            out = args.work / f"good-{features}-{name}-{size[0]}.json"
            if out.exists():
                continue
            photo, style = photograph(size), painting(name)
            true, rows, apart = judge(style), [], [0.0]

            def watch(progress):
                begun = time.process_time()
                if progress.step % 10 == 0 or progress.step == progress.steps:
                    spent = begun - started - apart[0]  # noqa: B023
                    if (progress.width, progress.height) == size:  # noqa: B023
                        found = losses(true, style, photo, progress.picture())  # noqa: B023
                        rows.append({"step": progress.step, "cpu": spent, **found})  # noqa: B023
                        print(features, name, rows[-1], flush=True)  # noqa: B023
                apart[0] += time.process_time() - begun  # noqa: B023

            opened = network(features)
            started = time.process_time()
            engine = OptimiseEngine(str(style), "good", features=opened, device="cpu", watch=watch)
            result = engine.stylize(Frame(photo), StyleMix.parse(str(style))).pixels
            total = time.process_time() - started - apart[0]
            save(out.with_suffix(".png"), result)
            keep(out, {"cpu": total, "final": losses(true, style, photo, result), "rows": rows})


def clips() -> dict[str, tuple[list[np.ndarray], dict[tuple[int, int], Motion]]]:
    """Frames and known motions, shrunk to `FILM_WIDTH`."""
    found = {}
    for scene in sintel_scenes(DATA / "sintel"):
        height, width = scene.frames[0].shape[:2]
        size = (FILM_WIDTH, round(height * FILM_WIDTH / width / 2) * 2)
        motions = {}
        for pair, motion in scene.motions.items():
            flow = cv2.resize(motion.flow, size, interpolation=cv2.INTER_AREA)
            flow *= np.float32([size[0] / width, size[1] / height])
            valid = cv2.resize(motion.valid.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.999
            motions[pair] = Motion(flow, valid)
        found[scene.name] = [scaled(f, size) for f in scene.frames], motions
    with open_source(DATA / "video" / "juggle.mp4") as source:
        frames = [scaled(f.pixels, (FILM_WIDTH, FILM_WIDTH * 9 // 16)) for f in islice(source, FILM_FRAMES)]
    found["juggle"] = (
        frames,
        {pair: estimated_motion(frames[pair[0]], frames[pair[1]]) for pair in pairwise(range(len(frames)))},
    )
    return found


def film(args: argparse.Namespace) -> None:
    """Each frame on its own, and as film, with `good`."""
    for name in FILM_PAINTINGS:
        style = painting(name)
        mix, true = StyleMix.parse(str(style)), judge(style)
        engine = OptimiseEngine(str(style), "good", features=Vgg19(VGG), device="cpu")
        for clip, (frames, motions) in clips().items():
            out = args.work / f"film-{name}-{clip}.json"
            if out.exists() or (args.clips and clip not in args.clips):
                continue
            follow = engine.clip(DisFlow("medium"))
            follow.store = Kept(args.work / f"film-{name}-{clip}")
            result, alone = {}, needed(motions, len(frames))
            for kind, paint in (("film", follow.stylize), ("alone", engine.stylize)):
                painted = []
                wanted = range(len(frames)) if kind == "film" else sorted(alone)
                for index in wanted:
                    path = args.work / f"film-{name}-{clip}" / f"{kind}-{index:03}.png"
                    frame = Frame(frames[index], pts=index, time_base=Fraction(1, 24))
                    if path.exists() and kind == "alone":
                        painted.append(read_picture(path))
                        continue
                    painted.append(paint(frame, mix).pixels)
                    save(path, painted[-1])
                    print(clip, kind, index, flush=True)
                by_index = dict(zip(wanted, painted, strict=True))
                pairs = [pair for pair in motions if set(pair) <= alone]  # the same for both
                errors = [warping_error(by_index[a], by_index[b], motions[a, b]) for a, b in pairs]
                judged = sorted({index for pair in pairs for index in pair})
                found = [losses(true, style, frames[i], by_index[i]) for i in judged]
                result[kind] = {
                    "warping_error": float(np.mean(errors)),
                    "style": float(np.mean([f["style"] for f in found])),
                    "content": float(np.mean([f["content"] for f in found])),
                    "sharpness": float(np.mean([sharpness(by_index[i]) for i in judged])),
                    "pairs": len(errors),
                }
            own = [warping_error(frames[a], frames[b], motions[a, b]) for a, b in pairs]
            keep(out, result | {"input": float(np.mean(own)), "size": frames[0].shape[:2][::-1]})
            print(clip, json.dumps(result), flush=True)


class Kept:
    """A `FrameStore` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, frame: Frame, part: str) -> np.ndarray | None:
        path = self.folder / f"store-{frame.pts}-{part}.png"
        return read_picture(path) if path.exists() else None

    def put(self, frame: Frame, part: str, pixels: np.ndarray) -> None:
        save(self.folder / f"store-{frame.pts}-{part}.png", pixels)


def needed(motions, count: int) -> set[int]:
    """Frames that are painted alone: all of a short clip, of a long one three pairs."""
    if count <= 4:
        return {index for pair in motions for index in pair}
    return {i for middle in (count // 4, count // 2, count - 2) for i in (middle, middle + 1)}


def memory(args: argparse.Namespace) -> None:
    """Peak memory and seconds a step at three sizes, each in a process of its own."""
    for features in args.features:
        for size in MEMORY_SIZES:
            out = args.work / f"memory-{features}-{size}.json"
            if out.exists():
                continue
            command = [sys.executable, __file__, "one-size", "--size", size, "--features", features]
            done = subprocess.run(
                [*command, "--threads", str(args.threads)], capture_output=True, text=True, timeout=1800, check=True
            )
            print(done.stdout.strip(), flush=True)
            keep(out, json.loads(done.stdout))


def one_size(size: str, features: str, threads: int) -> None:
    width, height = map(int, size.split("x"))
    photo, times = photograph((width, height)), []
    preset = replace(PRESETS["good"], steps=(4,), start="content")
    engine = OptimiseEngine(
        str(painting("starry_night")), preset, features=network(features), device="cpu",
        watch=lambda _: times.append((time.process_time(), time.monotonic())),
    )  # fmt: skip
    engine.stylize(Frame(photo), StyleMix.parse(str(painting("starry_night"))))
    cpu, wall = (float(np.median(np.diff([t[i] for t in times]))) for i in (0, 1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"cpu_step": cpu, "wall_step": wall, "peak": peak, "threads": threads, "features": features}))


def sheets(args: argparse.Namespace) -> None:
    """8 paintings x 4 photographs on each network; and the shipped model beside `good`."""
    for name in SHEET_PAINTINGS:
        style = painting(name)
        for file in SHEET_PHOTOS[: args.photos]:
            photo = read_picture(DATA / "heldout" / file)
            k = SHEET_SIDE / min(photo.shape[:2])
            photo = scaled(photo, (round(photo.shape[1] * k), round(photo.shape[0] * k)))
            for features in args.features:
                path = args.work / "sheet" / f"{name}-{file[:2]}-{features}.png"
                if path.exists():
                    continue
                preset = PRESETS["good"].with_steps(SHEET_STEPS)
                engine = OptimiseEngine(str(style), preset, features=network(features), device="cpu")
                begun = time.process_time()
                save(path, engine.stylize(Frame(photo), StyleMix.parse(str(style))).pixels)
                print(path.name, f"{time.process_time() - begun:.0f} s", flush=True)
            live = args.work / "sheet" / f"{name}-{file[:2]}-live.png"
            if not live.exists():
                save(live, videonst.load("fast").stylize(photo, name))
    sheet_losses(args)


def sheet_losses(args: argparse.Namespace) -> None:
    """True losses of what the sheets show, by kind."""
    rows: dict[str, list] = {}
    for name in SHEET_PAINTINGS:
        true = None
        for file in SHEET_PHOTOS:
            paths = {
                kind: args.work / "sheet" / f"{name}-{file[:2]}-{kind}.png" for kind in ("live", "vgg19", "compact")
            }
            if not all(path.exists() for path in paths.values()):
                continue
            true = true or judge(painting(name))
            photo = read_picture(DATA / "heldout" / file)
            for kind, path in paths.items():
                result = read_picture(path)
                small = scaled(photo, (result.shape[1], result.shape[0]))
                rows.setdefault(kind, []).append(
                    {"painting": name, "photo": file, **losses(true, painting(name), small, result)}
                )
    if rows:
        keep(args.work / "sheet-losses.json", rows)


PARTS = {"reference": reference, "picture": picture, "film": film, "memory": memory, "sheets": sheets}


if __name__ == "__main__":
    main()
