"""Clips whose motion is known, to measure stability on."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from videonst.demo import PORTRAIT
from videonst.errors import InputError
from videonst.frame import Pixels
from videonst.resize import scaled
from videonst.sources import open_source
from videonst.temporal.flow import resample
from videonst.temporal.metrics import Motion, estimated_motion

LAGS = (1, 5, 10, 50)
"""Frames over which drift is measured."""

CAMERA_NOISE = 3.0
"""Standard deviation of the noise of the still scene, levels: an indoor webcam."""


@dataclass(frozen=True)
class Scene:
    """A clip and what is known of its motion.

    Attributes:
        name: also of its folder, where other programs paint it.
        kind: "synthetic", "still", "sintel" or "clip".
        frames: RGB, uint8, (H, W, 3), in order.
        motions: by first and second frame.
    """

    name: str
    kind: str
    frames: list[Pixels] = field(repr=False)
    motions: Mapping[tuple[int, int], Motion] = field(repr=False, default_factory=dict)


def synthetic_scene(count: int = 52, height: int = 180, width: int = 320) -> Scene:
    """A photograph that pans, under a disc of another that circles, in light that swells and fades: exact flow.

    Args:
        count: frames.
        height, width: pixels.
    """
    photo = _portrait()
    back = cv2.resize(photo, (3 * width // 2, 3 * width // 2), interpolation=cv2.INTER_CUBIC)
    disc = cv2.flip(cv2.resize(photo, (width, width), interpolation=cv2.INTER_AREA), 1)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    times = np.arange(count)
    pans = width * np.stack((0.25 + 0.2 * np.sin(times / 20), 0.2 + 0.1 * np.sin(times / 15)), 1)
    centres = np.stack(
        (width * (0.5 + 0.3 * np.cos(times / 9)), height * (0.5 + 0.25 * np.sin(times / 9))), 1
    )  # about 11 pixels a frame, the ground 3
    inside = [np.hypot(x - cx, y - cy) < height / 4 for cx, cy in centres]
    frames = []
    for time in range(count):
        ground = resample(back, np.dstack((x + pans[time, 0], y + pans[time, 1])).astype(np.float32))
        moving = np.dstack((x - centres[time, 0] + width / 2, y - centres[time, 1] + width / 2)).astype(np.float32)
        picture = np.where(inside[time][..., None], resample(disc, moving), ground)
        frames.append(np.clip(picture * (1 + 0.06 * np.sin(time / 7)), 0, 255).round().astype(np.uint8))

    def motion(first: int, second: int) -> Motion:
        flow = np.where(inside[first][..., None], centres[second] - centres[first], pans[first] - pans[second]).astype(
            np.float32
        )
        place = np.dstack((x, y)) + flow
        arrived = resample(inside[second].astype(np.float32), place)
        same = np.where(inside[first], arrived > _CLEAR, arrived < 1 - _CLEAR)
        seen = (place >= 0).all(2) & (place[..., 0] <= width - 1) & (place[..., 1] <= height - 1)
        return Motion(flow, same & seen)

    return Scene("synthetic", "synthetic", frames, _lagged(motion, count))


_CLEAR = 0.999
"""Share of a sample that must come from the same layer."""


def still_scene(count: int = 32) -> Scene:
    """A photograph that does not move, seen by a noisy camera."""
    return Scene("still", "still", list(noisy_stills(count)))


def noisy_stills(count: int, side: int | None = None) -> Iterator[Pixels]:
    """The frames of `still_scene`, one by one; `side` is their size, pixels, None that of the photograph."""
    photo = _portrait()
    if side is not None:
        photo = scaled(photo, (side, side))
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield np.clip(photo + rng.normal(0, CAMERA_NOISE, photo.shape), 0, 255).round().astype(np.uint8)


def sintel_scenes(folder: Path) -> list[Scene]:
    """Excerpts of MPI Sintel (Butler et al. 2012): folders of pictures with one `flow_NNNN.npz` that holds `flow` from
    frame NNNN to the next, and `valid`.

    Raises:
        InputError: there are none, or one is not of this form, damaged, or does not fit its pictures.
    """
    scenes = []
    for part in sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []:
        try:
            (truth,) = part.glob("flow_*.npz")
            pictures = sorted([*part.glob("frame_*.png"), *part.glob("frame_*.jpg")])
            first = [p.stem for p in pictures].index(truth.stem.replace("flow", "frame"))
            with truth.open("rb") as file, np.load(file) as values:
                motion = Motion(values["flow"].astype(np.float32), values["valid"].astype(bool))
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(
                f"{part} is no excerpt of Sintel; expected frame_NNNN pictures and one flow_NNNN.npz"
            ) from error
        frames = [read_picture(p) for p in pictures]
        if first + 1 == len(frames):
            raise InputError(f"{truth} leads to a frame that is not there; expected a picture after {pictures[first]}")
        sizes = {frame.shape[:2] for frame in frames}
        if sizes != {motion.valid.shape} or motion.flow.shape != (*motion.valid.shape, 2):
            raise InputError(f"{part} holds pictures of {sizes} and a flow of {motion.flow.shape}; expected one size")
        if not np.isfinite(motion.flow).all():
            raise InputError(f"{truth} holds motion that is no number; expected pixels everywhere")
        scenes.append(Scene(part.name, "sintel", frames, {(first, first + 1): motion}))
    if not scenes:
        raise InputError(f"there are no excerpts in {folder}; expected a folder for each")
    return scenes


def clip_scene(path: Path, count: int) -> Scene:
    """The first `count` frames of a clip, with motion estimated at their own size. Pairs of frames that have less in
    common than `LEAST_SEEN`, such as those of two shots, are left out.

    Raises:
        InputError: no clip, or one of a single frame.
    """
    with open_source(path) as source:
        frames = [frame.pixels for frame in islice(source, count)]
    if len(frames) < 2:
        raise InputError(f"{path} has one frame; expected a clip")
    motions = _lagged(lambda i, j: estimated_motion(frames[i], frames[j]), len(frames))
    seen = {pair: motion for pair, motion in motions.items() if motion.valid.mean() >= LEAST_SEEN}
    return Scene(path.stem, "clip", frames, seen)


LEAST_SEEN = 0.2
"""Share of a frame that must be found in the other: across cuts up to 0.14 agrees by chance, in fast pans more than
0.3 is right."""


def _lagged(motion: Callable[[int, int], Motion], count: int) -> dict[tuple[int, int], Motion]:
    """Neighbours in the second half of a clip, where the history has settled, and the longer lags up to its end."""
    last = count - 1
    pairs = {(i, i + 1) for i in range(count // 2, last)} | {(last - lag, last) for lag in LAGS if lag <= last}
    return {pair: motion(*pair) for pair in sorted(pairs)}


def read_picture(path: Path) -> Pixels:
    """RGB, uint8.

    Raises:
        InputError: missing, or no picture.
    """
    with open_source(path) as source:
        return next(iter(source)).pixels


def _portrait() -> Pixels:
    return read_picture(PORTRAIT)
