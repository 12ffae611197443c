"""Draws the README's pictures with the shipped models into docs/images.

    python tools/draw_gallery.py [--out DIR]

- sheet.jpg: the sample portrait in every style of `fast`
- strength.jpg: one style from untouched to beyond its own strength
- mixture.jpg: from one style to another
- tiers.jpg: the same styles by `tiny`, `fast` and `full`
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

import videonst
from videonst.demo import CLIP, PORTRAIT
from videonst.models import list_models
from videonst.sheet import paint_sheet
from videonst.sources import open_source

TIERS = ("tiny", "fast", "full")
SHOWN = ("starry_night", "great_wave", "the_scream")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "images")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    fast = videonst.load("fast")
    paint_sheet(fast, PORTRAIT, out / "sheet.jpg", overwrite=True)
    cat = frame_of_clip(100)
    strengths = (0.0, 0.35, 0.7, 1.0, 1.4)
    row(out / "strength.jpg", [fast.stylize(cat, "the_scream", strength=s) for s in strengths])
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    row(out / "mixture.jpg", [fast.stylize(cat, f"starry_night:{1 - s},great_wave:{s}") for s in shares])
    portrait = frame_of_clip(30)
    installed = {m.name for m in list_models()}
    rows = [
        np.hstack([shrink(videonst.load(tier).stylize(portrait, s)) for s in SHOWN])
        for tier in TIERS
        if tier in installed
    ]
    write(out / "tiers.jpg", np.vstack(rows))


def frame_of_clip(index: int) -> np.ndarray:
    with open_source(CLIP) as source:
        return next(f.pixels for i, f in enumerate(source) if i == index)


def shrink(pixels: np.ndarray, width: int = 400) -> np.ndarray:
    return cv2.resize(pixels, (width, round(width * pixels.shape[0] / pixels.shape[1])), interpolation=cv2.INTER_AREA)


def row(path: Path, pictures: list[np.ndarray]) -> None:
    write(path, np.hstack([shrink(p, 320) for p in pictures]))


def write(path: Path, pixels: np.ndarray) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(path)


if __name__ == "__main__":
    main()
