"""Numbered pictures, or a folder of them, as a source of frames."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sources.damage import Damage
from videonst.sources.image import read_picture
from videonst.sources.source import DEFAULT_RATE, NUMBER, PICTURE_SUFFIXES, SourceInfo
from videonst.trim import WHOLE, Trim


class ImageSequenceSource:
    """Pictures of one size at a constant rate.

    `frame_%05d.png` takes the files whose names fit, by their numbers, from the smallest on; the time of a picture
    follows from its number, so that a missing one leaves the picture before it standing. A folder gives all its
    pictures, one after the other, in natural order (`2.png` before `10.png`). Missing and unreadable pictures are
    reported as damage.

    Attributes:
        files: the pictures of the part, by their place in time, counted from the first picture of all.

    Raises:
        InputError: no such pictures, the first cannot be read, or none in the part to take; while iterating: another
            size than the first.
    """

    def __init__(
        self, path: Path, trim: Trim = WHOLE, *, rate: Fraction = DEFAULT_RATE, damage: Damage | None = None
    ) -> None:
        if not rate > 0:
            raise InputError(f"the rate is {float(rate):g} frames a second; expected more than 0")
        self._path = path
        self._damage = damage or Damage()
        self._rate = rate
        found = _in_folder(path) if path.is_dir() else _numbered(path)
        first = math.ceil((trim.start or 0) * rate)
        end = max(found) + 1 if trim.end is None else math.ceil(trim.end * rate)
        self.files = {place: file for place, file in found.items() if first <= place < end}
        if not self.files:
            raise InputError(
                f"{path} has no picture in the part to take; its {len(found)} pictures last "
                f"{float((max(found) + 1) / rate):g} s at {float(rate):g} frames a second"
            )
        self._last = min(end, max(found) + 1)
        self._offset = min(self.files) if trim.start is not None else 0
        self._first = read_picture(self.files[min(self.files)])
        self.info = SourceInfo(
            path,
            self._first.width,
            self._first.height,
            frame_count=len(self.files),
            duration=float((self._last - min(self.files)) / rate),
            average_rate=rate,
            part=Trim(None if trim.start is None else min(self.files) / rate, trim.end),
            is_sequence=True,
            pixel_format=None if self._first.alpha is None else "rgba",
            is_transparent=self._first.is_transparent,
            damage=self._damage,
        )

    def __iter__(self) -> Iterator[Frame]:
        readable = 0
        pending: tuple[int, Frame] | None = None
        for place in sorted(self.files):
            frame = self._read(place)
            if frame is None:
                continue
            readable += 1
            if pending is not None:
                yield self._timed(*pending, until=place)
            pending = place, frame
        missing = self._last - min(self.files) - readable
        if missing:
            self._damage.report(f"{missing} pictures of {self._path} are missing or cannot be read", missing)
        if pending is not None:
            yield self._timed(*pending, until=self._last)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _read(self, place: int) -> Frame | None:
        try:
            frame = self._first if place == min(self.files) else read_picture(self.files[place])
        except InputError:
            return None
        if frame.pixels.shape != self._first.pixels.shape:
            raise InputError(
                f"{self.files[place]} is {frame.width}x{frame.height}, the first picture "
                f"{self.info.width}x{self.info.height}; one video holds one size"
            )
        return frame

    def _timed(self, place: int, frame: Frame, *, until: int) -> Frame:
        return replace(frame, pts=place - self._offset, time_base=1 / self._rate, duration=until - place)


def _in_folder(folder: Path) -> dict[int, Path]:
    try:
        pictures = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error
    if not pictures:
        raise InputError(
            f"{folder} holds no picture ({', '.join(PICTURE_SUFFIXES)}); name a video, or a folder of pictures"
        )
    return dict(enumerate(sorted(pictures, key=natural_order)))


def _numbered(pattern: Path) -> dict[int, Path]:
    """The files of the pattern by number, counted from the smallest."""
    match = NUMBER.search(pattern.name)
    if match is None:
        raise InputError(f"{pattern} is no pattern of numbered pictures; expected a name such as frame_%05d.png")
    if pattern.suffix.lower() not in PICTURE_SUFFIXES:
        raise InputError(f"{pattern} names no pictures; expected one of {', '.join(PICTURE_SUFFIXES)}")
    before, after = (part.replace("%%", "%") for part in (pattern.name[: match.start()], pattern.name[match.end() :]))
    width = int(match[2] or 0) if match[1] else 0
    digits = rf"(\d{{{width},}})" if width else r"(\d+)"
    name = re.compile(re.escape(before) + digits + re.escape(after))
    folder = pattern.parent
    if not folder.is_dir():
        raise InputError(f"{pattern} does not exist; there is no folder {folder}")
    numbered = {int(fit[1]): file for file in folder.iterdir() if (fit := name.fullmatch(file.name))}
    if not numbered:
        raise InputError(f"no file fits {pattern}; check the name and how many digits its numbers have")
    first = min(numbered)
    return {number - first: file for number, file in sorted(numbered.items())}


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sorts numbers in names by value: `2.png` before `10.png`."""
    return [(int(part), part) if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]
