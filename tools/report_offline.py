"""Writes docs/benchmarks/offline.md, its raw JSON and the sheets from what `benchmark_offline.py` has measured so far.

python tools/report_offline.py [--work DIR]
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from benchmark_offline import (
    FILM_FRAMES,
    FILM_PAINTINGS,
    MEMORY_SIZES,
    SHEET_PAINTINGS,
    SHEET_PHOTOS,
    SHEET_SIDE,
    SHEET_STEPS,
    jobs,
    keep,
    painting,
)

from videonst.bench.scenes import read_picture
from videonst.optimise import PRESETS
from videonst.optimise.painter import _plan
from videonst.resize import scaled

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("offline-benchmark"))
    work = parser.parse_args().work
    found = {path.stem: json.loads(path.read_text()) for path in sorted(work.glob("*.json"))}
    for folder in sorted(work.glob("reference-*")):
        if (folder / "curve.json").exists():
            found[folder.name] = json.loads((folder / "curve.json").read_text())
        if (folder / "shown.json").exists():
            found[f"{folder.name}-shown"] = json.loads((folder / "shown.json").read_text())
    keep(DOCS / "benchmarks" / "offline.json", thinned(found))
    page = [HEAD]
    for section in (picture_table, film_table, memory_table, sheet_table):
        page += section(found)
    (DOCS / "benchmarks" / "offline.md").write_text("\n".join(page).strip() + "\n")
    for title, kinds in (("offline-networks", ("vgg19", "compact")), ("offline-live", ("live", "vgg19"))):
        draw_sheet(work, DOCS / "images" / f"{title}.jpg", kinds)


HEAD = """# The optimise engine, measured

Written by `tools/report_offline.py` from [offline.json](offline.json), which `tools/benchmark_offline.py` measures.
Two cores of an AMD EPYC (Zen 5, AVX-512, bf16; the rows of the compact network: Zen 4), torch on one thread; times are
CPU seconds of the process. Content and style are the relative losses of `gatys2016` (fp32, VGG-19 with average
pooling), whatever a picture was made with; loss = content + 10 x style. What the modes do: [quality.md](../quality.md).
"""


def thinned(found: dict) -> dict:
    """Curves with every tenth step after the first twenty."""
    return {
        name: [row for row in value if row["step"] <= 20 or row["step"] % 10 == 0] if isinstance(value, list) else value
        for name, value in found.items()
    }


def picture_table(found: dict) -> list[str]:
    lines = [
        "## One picture",
        "",
        "L-BFGS as in the paper (`gatys2016`, from the photograph) against `good`: the CPU seconds until `good` has "
        "the loss of the picture that `gatys2016` ends with (1.3 times that on the compact network), and their share "
        "of its time. Losses are those of the pictures that can be shown, with 8 bits a colour.",
        "",
        "| painting, size | gatys2016: steps, loss, seconds | network | good: loss, seconds | same loss after |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, size in jobs():
        curve = found.get(f"reference-{name}-{size[0]}")
        shown = found.get(f"reference-{name}-{size[0]}-shown")
        if not curve or not shown:
            continue
        last = curve[-1]
        for features, slack in (("vgg19", 1.0), ("compact", 1.3)):
            good = found.get(f"good-{features}-{name}-{size[0]}")
            if not good:
                continue
            reached = [row["cpu"] for row in good["rows"] if row["total"] <= slack * shown["total"]]
            when = f"{reached[0]:.0f} s, {100 * reached[0] / last['cpu']:.0f} %" if reached else "not reached"
            lines.append(
                f"| {name}, {size[0]}x{size[1]} | {last['step']}, {shown['total']:.4f}, {last['cpu']:.0f} s | "
                f"{features} | "
                f"{good['final']['total']:.4f}, {good['cpu']:.0f} s | {when} |"
            )
    return [*lines, ""] if len(lines) > 6 else []


HIDDEN = 0.1
"""Share of a frame."""


def film_table(found: dict) -> list[str]:
    lines = [
        "## Film",
        "",
        "`good` on VGG-19, frames shrunk to the size that is given; four frames of each Sintel excerpt, measured on "
        f"its pair with true motion, and {FILM_FRAMES} of `juggle.mp4`, measured on three pairs with estimated motion. "
        "Warping error as `videonst bench stability` has it.",
        "",
        "| painting | clip, size | warping error alone | as film | change | style loss film / alone | "
        "sharpness film / alone | input's own error |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in FILM_PAINTINGS:
        for key in sorted(k for k in found if k.startswith(f"film-{name}-")):
            row = found[key]
            alone, moved = row["alone"], row["film"]
            change = 100 * (moved["warping_error"] / alone["warping_error"] - 1)
            lines.append(
                f"| {name} | {key.removeprefix(f'film-{name}-')}, {row['size'][0]}x{row['size'][1]} | "
                f"{alone['warping_error']:.4f} | "
                f"{moved['warping_error']:.4f} | {change:+.0f} % | {moved['style'] / alone['style']:.2f} | "
                f"{moved['sharpness'] / alone['sharpness']:.2f} | {row['input']:.4f} |"
            )
    return [*lines, ""] if len(lines) > 6 else []


def memory_table(found: dict) -> list[str]:
    """Time of a picture and of a next frame follow from the step and what the painter plans."""
    lines = [
        "## Memory and time",
        "",
        "Peak of the process and time of a step, from 4 steps; frames of `good` computed from that: the first one, one "
        "that the frames before show whole, and one of which they lack a tenth.",
        "",
        "| size | network | peak | a step | first frame | all seen | a tenth hidden |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for size in MEMORY_SIZES:
        width, height = map(int, size.split("x"))
        for features in ("vgg19", "compact"):
            good = PRESETS["good"].on(features)
            kinds = (good.steps, good.following(0), good.following(HIDDEN))
            plans = [_plan(width, height, steps) for steps in kinds]
            counts = [sum(w * h * count for (w, h), count in plan) / (width * height) for plan in plans]
            row = found.get(f"memory-{features}-{size}")
            if row:
                step = row["cpu_step"]
                lines.append(
                    f"| {size} | {features} | {row['peak'] / 1e9:.1f} GB | {step:.1f} s | "
                    + " | ".join(f"{count * step / 60:.1f} min" for count in counts)
                    + " |"
                )
    return [*lines, ""] if len(lines) > 6 else []


def sheet_table(found: dict) -> list[str]:
    rows = found.get("sheet-losses")
    if not rows:
        return []
    lines = [
        "## VGG-19 beside the compact network, and the shipped network beside both",
        "",
        f"Means over {len(rows['vgg19'])} pictures of {SHEET_SIDE} pixels (short side); `good` with {SHEET_STEPS} "
        "steps.",
        "",
        "| made with | content | style |",
        "| --- | --- | --- |",
    ]
    for kind in ("live", "vgg19", "compact"):
        content, style = (np.mean([row[part] for row in rows[kind]]) for part in ("content", "style"))
        lines.append(f"| {kind} | {content:.3f} | {style:.4f} |")
    return [
        *lines,
        "",
        "Each row a painting, then for each photograph VGG-19 and the compact network:",
        "",
        "![VGG-19 beside the compact network](../images/offline-networks.jpg)",
        "",
        "The shipped `fast` network and `good` on VGG-19:",
        "",
        "![live beside quality](../images/offline-live.jpg)",
        "",
    ]


def draw_sheet(work: Path, path: Path, kinds: tuple[str, ...]) -> None:
    """A row for each painting: itself, then each photograph in each kind. Nothing where pictures are missing."""
    tiles = []
    if len(list((work / "sheet").glob(f"*-{kinds[1]}.png"))) < len(SHEET_PAINTINGS) * len(SHEET_PHOTOS):
        return
    for name in SHEET_PAINTINGS:
        row = [tile(read_picture(painting(name)))]
        for file in SHEET_PHOTOS:
            for kind in kinds:
                made = work / "sheet" / f"{name}-{file[:2]}-{kind}.png"
                row.append(tile(read_picture(made)))
        tiles.append(np.hstack(row))
    encoded = cv2.imencode(".jpg", np.vstack(tiles)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    path.write_bytes(encoded.tobytes())


TILE = 200


def tile(pixels: np.ndarray) -> np.ndarray:
    """The middle square, `TILE` pixels a side."""
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return scaled(np.ascontiguousarray(pixels[top : top + side, left : left + side]), (TILE, TILE))


if __name__ == "__main__":
    main()
