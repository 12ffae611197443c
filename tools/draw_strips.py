"""Frame strips for docs/benchmarks/stability.md: successive frames as they came, painted plainly, and steadied.

    python tools/draw_strips.py CLIP OUT.jpg --style udnie [--start 40] [--frames 4] [--crop X Y WIDTH HEIGHT]

The clip is painted from 16 frames before the first one shown, so that the history is there. The last two rows are the
differences of each painted frame to the one before, plain and steadied, four times enlarged around grey.
"""

import argparse
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

import videonst
from videonst.sources import open_source
from videonst.styles import StyleMix

LEAD = 16
GAIN = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--style", required=True)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--steady", type=float, default=0.75)
    parser.add_argument("--width", type=int, default=640, help="Width at which the clip is painted.")
    parser.add_argument("--start", type=int, default=LEAD)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--crop", type=int, nargs=4, metavar=("X", "Y", "WIDTH", "HEIGHT"))
    args = parser.parse_args()

    stylizer = videonst.load(args.model)
    engine, mix = stylizer.steady(args.steady), StyleMix.parse(args.style)
    rows: dict[str, list[np.ndarray]] = {"input": [], "plain": [], "steady": []}
    with open_source(args.clip) as source:
        for index, frame in enumerate(islice(source, args.start - LEAD, args.start + args.frames), -LEAD):
            size = args.width, round(frame.height * args.width / frame.width)
            small = frame.with_pixels(cv2.resize(frame.pixels, size, interpolation=cv2.INTER_AREA))
            steadied = engine.stylize(small, mix).pixels
            if index >= -1:
                rows["input"].append(small.pixels)
                rows["plain"].append(stylizer.engine.stylize(small, mix).pixels)
                rows["steady"].append(steadied)
    x, y, width, height = args.crop or (0, 0, *size)
    cut = {name: [p[y : y + height, x : x + width] for p in pictures] for name, pictures in rows.items()}
    strips = [np.hstack(cut[name][1:]) for name in ("input", "plain", "steady")]
    strips += [np.hstack([change(a, b) for a, b in zip(cut[n], cut[n][1:], strict=False)]) for n in ("plain", "steady")]
    cv2.imwrite(str(args.out), cv2.cvtColor(np.vstack(strips), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])


def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.clip(128 + GAIN * (after.astype(int) - before), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
