"""What new styles are learnt on: a folder of photographs, frames of a clip, or a small set that is always at hand."""

import itertools
import logging
from pathlib import Path

import cv2
import numpy as np

from videonst.demo import CLIP, PORTRAIT
from videonst.errors import InputError
from videonst.frame import Pixels
from videonst.sources import open_source
from videonst.training.data import list_images, read_image, resize_short_side
from videonst.trim import Trim

log = logging.getLogger(__name__)

PICTURE_SIZE = 288
"""Short side to which pictures are brought, pixels: about that of the photographs the shipped networks know."""
MAX_PICTURES = 128
"""Of a folder; more would not be looked at."""
CLIP_FRAMES = 32
"""Of a clip, spread over its length."""
SAMPLE_FRAMES = 12
DRAWN = 24
"""Drawn pictures of the set that is always at hand."""

LEAVES, DISCS = 300, 0.6
"""Leaves of a drawn picture, and the share of discs among them."""
GRAIN = 0.02
"""Standard deviation of each octave of their grain, on a [0, 1] scale."""
LEAST_LEAF, LARGEST_LEAF = 5.0, 140.0
"""Their radii, pixels."""


def gather_pictures(content: Path | None) -> tuple[list[Pixels], str]:
    """Pictures to learn on, RGB with a short side of `PICTURE_SIZE`, and what they are, in words.

    Args:
        content: folder of photographs, or a video file; None takes the set that is always at hand: a portrait, frames
            of the sample clip, and drawn pictures.

    Raises:
        InputError: neither, or nothing in it can be read.
    """
    if content is None:
        with open_source(PORTRAIT) as source:
            portrait = next(iter(source)).pixels
        drawn = [draw_leaves(seed) for seed in range(DRAWN)]
        pictures = [_small(portrait), *_frames(CLIP, SAMPLE_FRAMES), *drawn]
        words = "the built-in set"
    elif content.is_dir():
        paths = list_images(content)
        count = min(len(paths), MAX_PICTURES)
        found = (_read(paths[i * len(paths) // count]) for i in range(count))
        pictures = [_small(image) for image in found if image is not None]
        if not pictures:
            raise InputError(f"none of the {len(paths)} pictures in {content} can be read")
        words = f"{len(pictures)} pictures of {content.resolve().name}"
    else:
        pictures = _frames(content, CLIP_FRAMES)
        words = f"{len(pictures)} frames of {content.name}"
    return pictures, words


def draw_leaves(seed: int) -> Pixels:
    """A dead-leaves picture, (288, 384, 3): shaded, grained discs and boxes that cover each other, many small ones and
    few large. Its statistics are those of photographs (Lee, Mumford, Huang: *Occlusion Models for Natural Images*,
    IJCV 2001)."""
    rng = np.random.default_rng(seed)
    height, width = PICTURE_SIZE, PICTURE_SIZE * 4 // 3
    base = np.clip(rng.uniform(0.2, 0.8) + rng.normal(0, 0.12, 3), 0, 1)
    image = np.full((height, width, 3), base, np.float32)
    # Radii with density r^-3, the largest first, so that large leaves lie behind.
    for radius in sorted(LEAST_LEAF / np.sqrt(rng.uniform((LEAST_LEAF / LARGEST_LEAF) ** 2, 1, LEAVES)), reverse=True):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        reach = int(1.5 * radius) + 1
        left, top = max(0, int(x) - reach), max(0, int(y) - reach)
        ys, xs = np.mgrid[top : min(height, int(y) + reach), left : min(width, int(x) + reach)].astype(np.float32)
        angle, flat = rng.uniform(0, np.pi), rng.uniform(0.4, 1)
        u = ((xs - x) * np.cos(angle) + (ys - y) * np.sin(angle)) / radius
        v = ((ys - y) * np.cos(angle) - (xs - x) * np.sin(angle)) / (radius * flat)
        inside = u**2 + v**2 < 1 if rng.random() < DISCS else (abs(u) < 1) & (abs(v) < 1)
        colour = np.clip(base + rng.normal(0, 0.25) + rng.normal(0, 0.1, 3), 0, 1)
        shade = rng.normal(0, 0.25) * u + rng.normal(0, 0.25) * v
        image[top:, left:][: len(xs), : xs.shape[1]][inside] = (colour + shade[..., None])[inside]
    grain = np.zeros((height, width), np.float32)
    for k in range(5):
        octave = rng.normal(0, GRAIN, (height >> k, width >> k)).astype(np.float32)
        grain += cv2.resize(octave, (width, height))
    image = cv2.GaussianBlur(np.clip(image + grain[..., None], 0, 1), (0, 0), 0.7)
    levels: Pixels = (image * 255).round().astype(np.uint8)
    return levels


def _small(picture: Pixels) -> Pixels:
    """At once: a folder of photographs as cameras take them is more than memory holds."""
    return resize_short_side(picture, PICTURE_SIZE)


def _read(path: Path) -> Pixels | None:
    image = read_image(path)
    if image is None:
        log.warning("skipping %s: not a readable picture", path)
    return image


def _frames(clip: Path, count: int) -> list[Pixels]:
    """Small frames spread over the length of a clip, or its first ones where the length is not known."""
    frames: list[Pixels] = []
    with open_source(clip) as source:
        duration = source.info.duration
        if duration is None or source.info.is_still:
            for frame in source:
                frames.append(_small(frame.pixels))
                if len(frames) == count:
                    break
    if not frames and duration is not None:
        for i in range(count):
            with open_source(clip, Trim.parse(start=duration * i / count)) as source:
                frames += [_small(frame.pixels) for frame in itertools.islice(source, 1)]
    if not frames:
        raise InputError(f"{clip} has no frames to learn on; give another clip, or a folder of photographs")
    return frames
