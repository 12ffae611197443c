"""Paintings as styles: which picture a name stands for, and its statistics at the size of the work."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch

from videonst.errors import InputError
from videonst.frame import Pixels
from videonst.optimise.objective import Features, Region
from videonst.perceptual.losses import Statistics, blend, style_statistics
from videonst.resize import scaled
from videonst.sources import open_source
from videonst.sources.image import read_picture
from videonst.sources.source import is_address
from videonst.styles import StyleMix, is_picture
from videonst.training.data import list_paintings, to_tensor

LEAST_PAINTING = 64
"""Pixels of the short side: with less there are no strokes to see."""

MOST_KNOWN = 64
"""Statistics that are kept, of a painting at a size and in a region, some 3 MB each: a batch may hold pictures of many
sizes."""

MOST_REGIONS = 16
"""Colours of a mask that stand for regions; what is blurred between them goes to the nearest."""


def find_paintings(mix: StyleMix, folder: Path | None) -> dict[str, Path]:
    """The picture that each style of a mixture names: a path, or a name in a folder of paintings.

    Args:
        mix: as typed.
        folder: paintings by file name or as its `styles.toml` says; None where there is none.

    Raises:
        InputError: a name without a painting, or no such folder.
    """
    known = {painting.name: painting.path for painting in list_paintings(folder)} if folder else {}
    found = {}
    for name, _ in mix.shares:
        if name in known:
            found[name] = known[name]
        elif is_address(name):
            raise InputError(f"paintings are read from files; fetch {name} first and name the file")
        elif is_picture(name) or Path(name).expanduser().is_file():
            found[name] = Path(name).expanduser()
        elif folder:
            raise InputError(f"there is no painting {name!r} in {folder}; it has {', '.join(known)}")
        else:
            raise InputError(
                f"models hold no paintings, so --engine optimise needs a picture for {name!r}: name a file, such as "
                f"{name}.jpg, or a folder of paintings with --paintings DIR"
            )
    return found


def read_painting(path: Path) -> Pixels:
    """RGB, uint8: upright, what is transparent over white, of an animation the first picture.

    Raises:
        InputError: unreadable, a folder, or too small.
    """
    if path.is_dir():
        raise InputError(f"the painting {path} is a folder; name a picture in it, or give it as --paintings")
    try:
        with open_source(path) as source:
            pixels = next(iter(source)).over_white().pixels
    except InputError as error:
        raise InputError(f"the painting: {error}") from error
    height, width = pixels.shape[:2]
    if min(height, width) < LEAST_PAINTING:
        raise InputError(
            f"the painting {path} is {width}x{height}; expected sides of {LEAST_PAINTING} pixels or more, better 500"
        )
    return pixels


class Paintings:
    """Statistics of paintings, in mixtures and regions, at any size.

    Args:
        pictures: by style name.
        features, layers: the perceptual network, and its layers whose statistics count.
        masks: of each painting, in order, regions by label (H, W); none for whole paintings.
        stroke_scale: the painting's size against the result's: 2 makes strokes twice as large.
    """

    def __init__(
        self,
        pictures: Mapping[str, Pixels],
        features: Features,
        layers: Sequence[str],
        masks: Sequence[npt.NDArray[np.uint8]] = (),
        stroke_scale: float = 1.0,
        device: str = "cpu",
    ) -> None:
        self.names = tuple(pictures)
        self._pictures, self._features, self._layers = pictures, features, tuple(layers)
        self._masks = dict(zip(pictures, masks, strict=True)) if masks else {}
        self._stroke_scale, self._device = stroke_scale, device
        self._known: dict[tuple[str, int, int, int | None], Mapping[str, Statistics]] = {}

    def regions(self, mix: StyleMix, area: int, labels: npt.NDArray[np.uint8] | None = None) -> list[Region]:
        """What a picture of `area` pixels is to have, of whose regions `labels` (H, W) tells.

        Raises:
            InputError: a region that a painting's mask has not.
        """
        if labels is None:
            return [Region(self._blend(mix, area, None))]
        found = []
        for label in np.unique(labels):
            mask = torch.from_numpy((labels == label).astype(np.float32))[None, None]
            found.append(Region(self._blend(mix, area, int(label)), mask, float(mask.mean())))
        return found

    def _blend(self, mix: StyleMix, area: int, label: int | None) -> Mapping[str, Statistics]:
        return blend([self._statistics(name, area, label) for name, _ in mix.shares], [s for _, s in mix.shares])

    @torch.no_grad()
    def _statistics(self, name: str, area: int, label: int | None) -> Mapping[str, Statistics]:
        picture = self._pictures[name]
        height, width = picture.shape[:2]
        factor = min(1.0, (area / (width * height)) ** 0.5 * self._stroke_scale)
        size = max(LEAST_PAINTING, round(width * factor)), max(LEAST_PAINTING, round(height * factor))
        key = (name, *size, label)
        if key not in self._known:
            region = None
            if label is not None:
                mask = (self._masks[name] == label).astype(np.float32)
                if not mask.any():
                    raise InputError(f"the mask of {name} lacks a colour that the content mask has; use the same")
                region = torch.from_numpy(cv2.resize(mask, size, interpolation=cv2.INTER_AREA))[None, None].to(
                    self._device
                )
            if len(self._known) == MOST_KNOWN:
                del self._known[next(iter(self._known))]
            found = self._features(to_tensor(scaled(picture, size)).to(self._device), self._layers)
            self._known[key] = style_statistics(found, region)
        return self._known[key]


def read_masks(content: Path, paintings: Sequence[Path]) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.uint8]]]:
    """The regions of a picture and of paintings, by label from 0: equal colours mean each other. What is of none of
    them, such as a blurred edge, goes to the nearest colour; a flat colour that only a painting's mask has is a label
    of its own, which nothing takes its style from.

    Raises:
        InputError: a mask that is unreadable, or has more colours than `MOST_REGIONS`.
    """
    first, *others = (_read_mask(path) for path in (content, *paintings))
    colours = _flat_colours(first, SAME_COLOUR if content.suffix.lower() in LOSSY_SUFFIXES else 0)
    if not 1 <= len(colours) <= MOST_REGIONS:
        raise InputError(f"the mask {content} has {len(colours)} colours; expected 2 to {MOST_REGIONS} flat ones")
    apart = [float(np.abs(a - b).max()) for a, b in itertools.combinations(colours, 2)]
    like = min([SAME_COLOUR, *(difference / 2 for difference in apart)])
    return _labels(first, colours), [_labels(mask, _flat_colours(mask, like, colours)) for mask in others]


def _flat_colours(
    mask: Pixels, like: float, known: Sequence[npt.NDArray[np.float32]] = ()
) -> list[npt.NDArray[np.float32]]:
    """The known colours, then those of a mask, the most frequent first, that differ by more than `like` levels in some
    channel from all before them."""
    is_flat = (cv2.dilate(mask, _AROUND) == cv2.erode(mask, _AROUND)).all(2)  # no edge, blurred or not
    packed = mask[is_flat].astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    found, counts = np.unique(packed, return_counts=True)
    frequent = found[np.argsort(-counts, kind="stable")][: np.count_nonzero(counts >= LEAST_SHARE * is_flat.size)]
    colours = list(known)
    for value in frequent.tolist():
        colour = np.array([value >> 16, value >> 8 & 255, value & 255], np.float32)
        if all(np.abs(colour - other).max() > like for other in colours):
            colours.append(colour)
    return colours


def _labels(mask: Pixels, colours: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.uint8]:
    distances = [((mask - colour) ** 2).sum(2) for colour in colours]
    nearest: npt.NDArray[np.uint8] = np.argmin(distances, 0).astype(np.uint8)
    return nearest


def _read_mask(path: Path) -> Pixels:
    pixels = read_picture(path).pixels
    factor = min(1.0, MOST_MASK / max(pixels.shape[:2]))
    size = max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor))
    return cast(Pixels, cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST))


def check_mask(labels: npt.NDArray[np.uint8], width: int, height: int, what: str) -> None:
    """
    Raises:
        InputError: a mask of other proportions than the picture `what`.
    """
    rows, columns = labels.shape
    if abs(columns / rows * height / width - 1) > MASK_TOLERANCE:
        raise InputError(
            f"the mask of {what} is {columns}x{rows}, the picture {width}x{height}; expected the same proportions"
        )


MASK_TOLERANCE = 0.03
"""Relative difference of the proportions of mask and picture that rounding may make."""

MOST_MASK = 2048
"""Pixels of the long side to which a mask is brought; borders of regions need be no finer."""

LEAST_SHARE = 0.002
"""Of a mask's pixels: what has less is no region."""

_AROUND = np.ones((3, 3), np.uint8)

LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")

SAME_COLOUR = 24.0
"""Levels by which a channel may differ within one colour of a mask that was saved as JPEG, and between the masks of
content and painting; there less where the content's own colours are as near each other, as in maps of class numbers."""
