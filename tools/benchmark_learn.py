"""Learnt styles against jointly trained ones: paintings that the base has never seen, and what it has.

    python tools/benchmark_learn.py --base loo.onnx --minutes 10 --features vgg19 [--steps 300] [--limit 8]

`--base` is a network trained without the paintings (leave-some-out), `--joint` one trained with all (the shipped one).
Every painting is learnt on the base and scored as tools/evaluate.py does; then the styles that both hold are scored in
both, which tells how much of a difference comes from the base itself. Files go to `--folder`: the learnt models, the
rows (learn.json) and the sheet (learn.jpg: painting, photograph, joint, learnt). Data: VIDEONST_DATA, else
../shared/data. Needs the [train] extra.
"""

import argparse
import json
import os
import time
from pathlib import Path

import cv2
import evaluate
import numpy as np

import videonst
from videonst.training.budget import LearnSettings

PAINTINGS = ("great_wave", "starry_night", "udnie", "shipwreck")
TILE = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--joint", default="fast")
    parser.add_argument("--paintings", nargs="+", default=PAINTINGS)
    parser.add_argument("--features", nargs="+", default=["vgg19", "compact"])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--content", type=Path, help="folder of photographs; default: the built-in set")
    parser.add_argument("--limit", type=int, default=8, help="held-out photographs to score on")
    parser.add_argument("--both", type=int, default=4, help="styles of both networks to compare them by")
    parser.add_argument("--photo", type=int, default=0, help="number of the held-out photograph on the sheet")
    parser.add_argument("--known", type=Path, help="scores of the joint network that tools/evaluate.py wrote")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/benchmark-learn"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ.get("VIDEONST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    report = args.folder / "learn.json"
    rows = json.loads(report.read_text()) if report.exists() else {}
    if args.known:
        for style, row in json.loads(args.known.read_text())["styles"].items():
            rows |= {f"score {style} joint": row, f"both {style} joint": row}
    quality = evaluate.load_measure(data)
    photos = sorted((data / "heldout").iterdir())[: args.limit]
    vgg = None

    def score(model, style: str) -> dict:
        nonlocal vgg
        if vgg is None:
            raw = quality.Vgg19(data / "vgg19-features.safetensors")
            vgg = evaluate.Remembering(raw, [quality.read(photo) for photo in photos], quality.CONTENT_LAYER)
        return evaluate.score(quality, vgg, photos, model, style, painting(data, style))

    def keep(key: str, make) -> None:
        if key not in rows:
            rows[key] = make()
            report.write_text(json.dumps(rows, indent=1))
        print(key, json.dumps(rows[key]), flush=True)

    def learn(style: str, features: str) -> dict:
        settings = LearnSettings(minutes=args.minutes, steps=args.steps)
        began, worked = time.monotonic(), time.process_time()
        (made,) = videonst.learn(
            painting(data, style), out(style, features), into=args.base, settings=settings, features=features,
            vgg=data / "vgg19-features.safetensors" if features == "vgg19" else None, content=args.content,
            overwrite=True,
        )  # fmt: skip
        return {
            "steps": made.learnt.steps,
            "seconds": round(time.monotonic() - began, 1),
            "cpu_seconds": round(time.process_time() - worked, 1),
        }

    def out(style: str, features: str) -> Path:
        return args.folder / f"{style}-{features}.onnx"

    joint, base = videonst.load(args.joint, device="cpu"), videonst.load(args.base, device="cpu")
    for features in args.features:
        for style in args.paintings:
            keep(f"learn {style} {features}", lambda s=style, f=features: learn(s, f))
    for style in args.paintings:
        keep(f"score {style} joint", lambda s=style: score(joint, s))
        for features in args.features:
            model = videonst.load(out(style, features), device="cpu")
            keep(f"score {style} {features}", lambda m=model, s=style: score(m, s))
    for style in [name for name in base.styles if name in joint.styles][: args.both]:
        keep(f"both {style} joint", lambda s=style: score(joint, s))
        keep(f"both {style} base", lambda s=style: score(base, s))
    print_tables(rows, args.paintings, args.features)
    draw_sheet(data, photos[args.photo], joint, args.paintings, args.features, out, args.folder / "learn.jpg")


def painting(data: Path, style: str) -> Path:
    return next((data / "styles").glob(f"{style}.*"))


def print_tables(rows: dict, paintings: list, features: list) -> None:
    print("\n| painting | joint | " + " | ".join(f"{f}, score | {f}, of joint | {f}, steps" for f in features) + " |")
    for style in paintings:
        joint = rows[f"score {style} joint"]["score"]
        cells = []
        for f in features:
            found = rows[f"score {style} {f}"]["score"]
            cells += [f"{found:.3f}", f"{found / joint:.2f}", str(rows[f"learn {style} {f}"]["steps"])]
        print(f"| {style} | {joint:.3f} | " + " | ".join(cells) + " |")
    both = sorted(key.split()[1] for key in rows if key.startswith("both ") and key.endswith(" base"))
    ratios = [rows[f"both {style} base"]["score"] / rows[f"both {style} joint"]["score"] for style in both]
    if both:
        print(f"\nstyles that both networks hold, base of joint: {np.mean(ratios):.2f} ({', '.join(both)})")


def draw_sheet(data: Path, photo: Path, joint, paintings: list, features: list, out, path: Path) -> None:
    pixels = evaluate.read(photo)
    lines = []
    for style in paintings:
        painted = [joint.stylize(pixels, style)]
        painted += [videonst.load(out(style, f), device="cpu").stylize(pixels, style) for f in features]
        lines.append(np.hstack([tile(evaluate.read(painting(data, style))), *map(tile, [pixels, *painted])]))
    sheet = cv2.cvtColor(np.vstack(lines), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])
    cv2.imwrite(str(path.with_suffix(".png")), sheet)


def tile(image: np.ndarray) -> np.ndarray:
    """The middle square."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return cv2.resize(image[top : top + side, left : left + side], (TILE, TILE), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main()
