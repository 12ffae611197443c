"""Quality of a model: content, style and sharpness of every style on the held-out photographs.

    python tools/evaluate.py models/fast.onnx [--limit 8] [--json out.json]

Photographs, paintings, VGG-19 and the measure (quality.py, whose docstring defines the numbers) come from the data
folder: VIDEONST_DATA, else ../shared/data. Needs the [train] extra.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

import videonst

# Scores of published networks, the better of the two columns of the data folder's README (first 8 photographs).
PUBLISHED = {"great_wave": 1.36, "the_scream": 0.99, "udnie": 1.05, "shipwreck": 0.88, "starry_night": 1.13}


def load_measure(data: Path):
    spec = importlib.util.spec_from_file_location("quality", data.parent / "quality.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--limit", type=int, help="only the first N photographs; the reference values use 8")
    parser.add_argument("--styles", nargs="+")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    data = Path(os.environ.get("VIDEONST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    quality = load_measure(data)
    vgg = quality.Vgg19(data / "vgg19-features.safetensors")
    photos = sorted((data / "heldout").iterdir())[: args.limit]
    vgg = Remembering(vgg, [quality.read(photo) for photo in photos], quality.CONTENT_LAYER)
    model = videonst.load(args.model)
    rows = {}
    print(f"{'style':<20}{'score':>8}{'content':>9}{'style':>8}{'sharp':>7}  of published")
    for style in args.styles or model.styles:
        painting = next((data / "styles").glob(f"{style}.*"))
        row = rows[style] = score(quality, vgg, photos, model, style, painting, args.strength)
        ratio = f"{row['score'] / PUBLISHED[style]:.2f}" if style in PUBLISHED else ""
        print(f"{style:<20}{row['score']:8.3f}{row['content']:9.3f}{row['style']:8.3f}{row['sharp']:7.2f}  {ratio}")
        sys.stdout.flush()
    mean = {key: float(np.mean([r[key] for r in rows.values()])) for key in ("score", "content", "style", "sharp")}
    print(f"{'mean':<20}{mean['score']:8.3f}{mean['content']:9.3f}{mean['style']:8.3f}{mean['sharp']:7.2f}")
    if args.json:
        args.json.write_text(json.dumps({"model": str(args.model), "photos": len(photos), "styles": rows}, indent=1))


def score(quality, vgg, photos: list, model, style: str, painting: Path, strength: float = 1.0) -> dict:
    """What the measure says of a style on the photographs."""
    with tempfile.TemporaryDirectory() as folder:
        for photo in photos:
            painted = model.stylize(read(photo), style, strength=strength)
            cv2.imwrite(str(Path(folder, photo.stem + ".png")), cv2.cvtColor(painted, cv2.COLOR_RGB2BGR))
        return quality.measure(vgg, photos, Path(folder), painting)


class Remembering:
    """The measure's network with the content features of the photographs kept, which every style needs again."""

    def __init__(self, vgg, photos: list, layer: str) -> None:
        self.vgg = vgg
        self.known = {photo.numpy().tobytes(): {layer: vgg(photo)[layer]} for photo in photos}

    def __call__(self, image):
        return self.known.get(image.numpy().tobytes()) or self.vgg(image)


def read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


if __name__ == "__main__":
    main()
