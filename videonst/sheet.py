"""Contact sheet: one photograph in every style of a model."""

import math
from pathlib import Path

import cv2
import numpy as np

from videonst.api import Stylizer
from videonst.frame import Frame, Pixels
from videonst.sinks import open_sink
from videonst.sources import open_source

TILE_WIDTH = 360
LABEL_HEIGHT = 26


def paint_sheet(model: Stylizer, photo: Path, target: Path, *, strength: float = 1.0, overwrite: bool = False) -> None:
    """Writes a picture file with the photograph and its repainting in each style, labelled with the style's name.

    Photographs are painted at their own size and shrunk to tiles `TILE_WIDTH` wide.

    Raises:
        InputError: a photograph that cannot be read, or a target that cannot be written.
    """
    with open_source(photo) as source, open_sink(target, source.info, overwrite=overwrite) as sink:
        pixels = next(iter(source)).over_white().pixels
        tiles = [_tile(pixels, "photo")]
        for style in model.styles:
            tiles.append(_tile(model.stylize(pixels, style, strength=strength), style))
        sink.write(Frame(_arrange(tiles)))


def _tile(pixels: Pixels, label: str) -> Pixels:
    height = max(1, round(TILE_WIDTH * pixels.shape[0] / pixels.shape[1]))
    interpolation = cv2.INTER_AREA if pixels.shape[1] > TILE_WIDTH else cv2.INTER_CUBIC
    tile = np.full((height + LABEL_HEIGHT, TILE_WIDTH, 3), 255, np.uint8)
    tile[:height] = cv2.resize(pixels, (TILE_WIDTH, height), interpolation=interpolation)
    origin = (4, height + LABEL_HEIGHT - 8)
    cv2.putText(tile, label, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return tile


def _arrange(tiles: list[Pixels]) -> Pixels:
    columns = math.ceil(math.sqrt(len(tiles)))
    blank = np.full_like(tiles[0], 255)
    tiles = tiles + [blank] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
