"""What a network is trained on: photographs (content) and paintings (styles)."""

import logging
import tomllib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videonst.errors import InputError
from videonst.sources.image import read_picture

log = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
FLIP_PROBABILITY = 0.5

LEAST_CONTRAST = 2.0
"""Standard deviation of a painting's strongest channel, 8-bit levels; a picture of one colour has less."""


@dataclass(frozen=True)
class Painting:
    """A style and where it comes from. `name` is what users type; the rest goes into the model's metadata."""

    name: str
    path: Path
    title: str
    artist: str
    year: str
    licence: str


def read_image(path: Path) -> npt.NDArray[np.uint8] | None:
    """Decodes a picture to RGB (H, W, 3), or None where it cannot be read."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def to_tensor(image: npt.NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255


def resize_short_side(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Resizes so that the short side has `size` pixels, keeping the proportions."""
    factor = size / min(image.shape[:2])
    target = (max(size, round(image.shape[1] * factor)), max(size, round(image.shape[0] * factor)))
    return cv2.resize(  # type: ignore[return-value]
        image, target, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    )


def list_images(folder: Path) -> list[Path]:
    """Picture files of a folder and the folders in it, sorted.

    Raises:
        InputError: no such folder, or no pictures in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected a folder of pictures ({', '.join(sorted(SUFFIXES))})")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"no pictures in {folder}; expected files ending in {', '.join(sorted(SUFFIXES))}")
    return found


def list_paintings(folder: Path) -> list[Painting]:
    """Paintings of a folder, in the order of its `styles.toml` if it has one, else by file name.

    `styles.toml` holds a table per style: `file`, `title`, `artist`, `year`, `licence`; only `file` is required.
    """
    index = folder / "styles.toml"
    if not index.is_file():
        return [Painting(p.stem, p, p.stem, "unknown", "unknown", "unknown") for p in list_images(folder)]
    try:
        table = tomllib.loads(index.read_text(encoding="utf-8"))
        return [
            Painting(
                name, folder / entry["file"], entry.get("title", name),
                *(str(entry.get(key, "unknown")) for key in ("artist", "year", "licence")),
            )
            for name, entry in table.items()
        ]  # fmt: skip
    except (tomllib.TOMLDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{index}: {error!r}; expected a table per style with at least `file`") from error


def read_painting(painting: Painting, size: int, least: int) -> npt.NDArray[np.uint8]:
    """Reads a painting with its short side brought to `size`; transparency is laid over white.

    Raises:
        InputError: unreadable, with a side below `least` pixels, or of one colour.
    """
    image = read_picture(painting.path).over_white().pixels
    if min(image.shape[:2]) < least:
        height, width = image.shape[:2]
        raise InputError(
            f"{painting.path} is {width}x{height}; expected sides of {least} pixels or more: enlarged, strokes are blur"
        )
    image = resize_short_side(image, size)
    if image.std((0, 1)).max() < LEAST_CONTRAST:
        raise InputError(f"{painting.path} is all of one colour; there are no strokes to learn")
    return image


class Photographs:
    """Deterministic training crops: the same step gives the same batch, in this run or a resumed one."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.paths = list_images(folder)
        self.seed = seed
        self.unreadable: set[Path] = set()

    def batch(self, step: int, count: int, crop: int, zoom: tuple[float, float]) -> Tensor:
        """Crops for one step, (count, 3, crop, crop) in [0, 1]: each photograph once before any comes again.

        Raises:
            InputError: no photograph in the folder can be read.
        """
        rng = np.random.default_rng((self.seed, step))
        return torch.cat([to_tensor(self._crop(step * count + i, crop, zoom, rng)) for i in range(count)])

    def _crop(
        self, index: int, crop: int, zoom: tuple[float, float], rng: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        return crop_square(self._read(index), crop, zoom, rng)

    def _read(self, index: int) -> npt.NDArray[np.uint8]:
        for attempt in range(len(self.paths)):
            path = self.paths[balanced(index, len(self.paths), self.seed, attempt)]
            image = None if path in self.unreadable else read_image(path)
            if image is not None:
                return image
            if path not in self.unreadable:
                self.unreadable.add(path)
                log.warning("skipping %s: not a readable picture (%d so far)", path, len(self.unreadable))
        raise InputError(f"none of the {len(self.paths)} pictures can be read")


def crop_square(
    image: npt.NDArray[np.uint8], crop: int, zoom: tuple[float, float], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """A square of (H, W, 3) with sides of `crop` pixels, enlarged by a factor from `zoom`, or as far as it must be,
    and mirrored as often as not."""
    factor = max(rng.uniform(*zoom), crop / min(image.shape[:2]))
    # Crop first, then enlarge: the same picture for less work.
    side = min(round(crop / factor), *image.shape[:2])
    top, left = (rng.integers(0, length - side + 1) for length in image.shape[:2])
    square = resize_short_side(image[top : top + side, left : left + side], crop)
    return square[:, ::-1] if rng.random() < FLIP_PROBABILITY else square


def balanced(index: int, count: int, seed: int, offset: int = 0) -> int:
    """Item of an endless sequence of shuffled rounds: every item once a round, without keeping state."""
    order = np.random.default_rng((seed, count, index // count)).permutation(count)
    return int(order[(index + offset) % count])
