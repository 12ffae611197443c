"""Pictures of a training run: a grid of samples and the loss curves."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from videonst.atomic import replacing
from videonst.frame import Pixels
from videonst.training.data import Painting, read_image, resize_short_side, to_tensor

if TYPE_CHECKING:
    from videonst.network import StyleNetwork

SAMPLE_PHOTOS, SAMPLE_SIZE, COLUMNS = 2, 192, 6
PREVIEW_PHOTOS = 4
CURVE_POINTS = 200


@torch.no_grad()
def draw_samples(network: "StyleNetwork", photos: list[Path], paintings: list[Painting], path: Path) -> None:
    """Two photographs in every style, photo slot first, as one PNG."""
    device = next(network.parameters()).device
    tiles = []
    for photo in (photos[len(photos) // 3], photos[2 * len(photos) // 3]):
        image = read_image(photo)
        if image is None:
            continue
        frame = to_tensor(resize_short_side(image, SAMPLE_SIZE)[:SAMPLE_SIZE, :SAMPLE_SIZE]).to(device)
        for slot in range(len(paintings) + 1):
            weights = torch.eye(len(paintings) + 1, device=device)[slot : slot + 1]
            painted = network.paint(frame, weights)
            tiles.append((painted[0].permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8))
    while len(tiles) % COLUMNS:
        tiles.append(np.full((SAMPLE_SIZE, SAMPLE_SIZE, 3), 255, np.uint8))
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    _write_png(np.vstack(rows), path)


@torch.no_grad()
def draw_preview(
    network: "StyleNetwork", rows: torch.Tensor, paintings: Sequence[Pixels], photos: Sequence[Pixels], path: Path
) -> None:
    """A line for each style: its painting, then photographs painted with its row of γ and β, as one PNG.

    Args:
        network: whatever its bank holds.
        rows: (styles, 2 x channels).
        paintings: one of each style, RGB.
        photos: RGB; a few of them are shown.
        path: replaced if it exists.
    """
    shown = [photos[i * len(photos) // PREVIEW_PHOTOS] for i in range(min(PREVIEW_PHOTOS, len(photos)))]
    frames = torch.cat([to_tensor(_square(photo)) for photo in shown]).to(rows.device)
    lines = []
    for painting, row in zip(paintings, rows, strict=True):
        painted = network.paint_rows(frames, row.expand(len(frames), -1)).permute(0, 2, 3, 1).cpu().numpy()
        lines.append(np.hstack([_square(painting), *(painted * 255).round().astype(np.uint8)]))
    _write_png(np.vstack(lines), path)


def _square(image: Pixels) -> Pixels:
    image = resize_short_side(image, SAMPLE_SIZE)
    top, left = ((length - SAMPLE_SIZE) // 2 for length in image.shape[:2])
    return image[top : top + SAMPLE_SIZE, left : left + SAMPLE_SIZE]


def draw_curves(log: Path, styles: list[str], path: Path) -> None:
    """Style, content and, where something moved, temporal loss of every style over the steps, smoothed, as one PNG."""
    from matplotlib.figure import Figure

    series: dict[str, dict[int, list[tuple[int, float]]]] = {
        key: defaultdict(list) for key in ("content", "style", "temporal")
    }
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            for key, slots in series.items():
                for slot, value in zip(entry["slots"], entry.get(key, ()), strict=False):
                    slots[slot].append((entry["step"], value))
    series = {key: slots for key, slots in series.items() if slots}
    figure = Figure(figsize=(6.5 * len(series), 6), layout="constrained")
    axes = figure.subplots(1, len(series))
    for axis, (key, slots) in zip(axes, series.items(), strict=True):
        for slot in sorted(slots):
            if slot == 0 and key == "style":
                continue
            points = np.array(slots[slot])
            chunks = np.array_split(points, min(len(points), CURVE_POINTS))
            steps, values = np.array([c.mean(0) for c in chunks]).T
            window = min(15, len(values))
            smooth = np.convolve(values, np.ones(window) / window, "valid")
            axis.plot(steps[window - 1 :], smooth, label=["photo", *styles][slot], linewidth=1)
        axis.set(title=f"{key} loss", xlabel="step", yscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[1].legend(fontsize=7, ncols=2)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=90)


def _write_png(image: np.ndarray, path: Path) -> None:
    with replacing(path) as part:
        part.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
