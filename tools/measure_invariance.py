"""What makes a model boil: how far its result changes when the photograph is shifted, noisy, compressed or brighter.

    python tools/measure_invariance.py models/fast.onnx [--photos 6] [--styles great_wave udnie]

Root of the mean squared difference, on a [0, 1] scale, between the results after moving them back, away from the
borders; mean over the first held-out photographs and the styles. Shifts cut another window out of the photograph, so
nothing is interpolated. Photographs come from the data folder: VIDEONST_DATA, else ../shared/data.
"""

import argparse
import os
from pathlib import Path

import cv2
import numpy as np

import videonst

MARGIN, BORDER = 8, 24
SHIFTS = (1, 2, 3, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--styles", nargs="+")
    args = parser.parse_args()
    model = videonst.load(args.model)
    data = Path(os.environ.get("VIDEONST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    photos = [cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB) for p in sorted((data / "heldout").iterdir())]
    found: dict[str, list[float]] = {}
    for style in args.styles or model.styles:
        for photo in photos[: args.photos]:
            for case, error in measure(lambda x, style=style: paint(model, x, style), photo):
                found.setdefault(case, []).append(error)
    for case, errors in found.items():
        print(f"{case:<24}{np.mean(errors):.4f}")


def paint(model, picture: np.ndarray, style: str) -> np.ndarray:
    return model.stylize(np.ascontiguousarray(picture), style).astype(np.float32) / 255


def measure(stylize, photo: np.ndarray):
    """Yields (what was changed, root mean squared difference)."""
    window = photo[:, : photo.shape[1] - MARGIN]
    plain = stylize(window)
    for shift in SHIFTS:
        moved = stylize(photo[:, shift : photo.shape[1] - MARGIN + shift])
        yield f"shift by {shift} pixels", difference(moved[:, :-shift], plain[:, shift:])
    noise = np.random.default_rng(0).normal(0, 2, window.shape)
    yield "noise of 2 levels", difference(stylize((window + noise).round().clip(0, 255).astype(np.uint8)), plain)
    coded = cv2.imencode(".jpg", window, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    yield "JPEG of quality 85", difference(stylize(cv2.imdecode(coded, cv2.IMREAD_COLOR)), plain)
    yield "5 % brighter", difference(stylize((window * 1.05).round().clip(0, 255).astype(np.uint8)), plain)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    inner = (slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return float(np.sqrt(np.square(a[inner] - b[inner]).mean()))


if __name__ == "__main__":
    main()
