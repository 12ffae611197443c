"""Frames of another size: what a user asks for, and a source around a source that delivers it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import cast

import cv2

from videonst.errors import InputError
from videonst.frame import Frame, Pixels
from videonst.sources import Source, SourceInfo
from videonst.sources.around import SourceAround


@dataclass(frozen=True)
class Resize:
    """One of three: an exact size, the length of the shorter side, or a factor.

    Attributes:
        size: (width, height), pixels. The shape stays as it is shown, by way of the sample aspect ratio, as with
            ffmpeg's scale filter.
        lines: of the shorter side, so that 720p fits upright clips too.
        factor: of both sides.
    """

    size: tuple[int, int] | None = None
    lines: int | None = None
    factor: Fraction | None = None

    @classmethod
    def parse(cls, text: str) -> "Resize":
        """Reads `1280x720`, `720p` or `0.5`.

        Raises:
            InputError: another text, or a size of no pixels.
        """
        if match := re.fullmatch(r"(\d+)x(\d+)", text.strip()):
            resize = cls(size=(int(match[1]), int(match[2])))
        elif match := re.fullmatch(r"(\d+)p", text.strip()):
            resize = cls(lines=int(match[1]))
        elif re.fullmatch(r"\d+(\.\d*)?|\.\d+", text.strip()):
            resize = cls(factor=Fraction(text.strip()))
        else:
            raise InputError(f"cannot read {text!r} as a size; expected WIDTHxHEIGHT, LINESp (720p) or a factor (0.5)")
        if not (resize.factor or resize.lines or (resize.size and min(resize.size))):
            raise InputError(f"{text!r} leaves no pixels; expected a size above 0")
        return resize

    def applied(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the resized picture, even where the size follows from a proportion, as most codecs like.

        Raises:
            InputError: nothing would be left, or more than `LARGEST` a side.
        """
        if self.size is not None:
            new = self.size
        else:
            factor = self.factor or Fraction(cast(int, self.lines), min(width, height))
            new = (2 * round(width * factor / 2), 2 * round(height * factor / 2))
        if not 0 < min(new) <= max(new) <= LARGEST:
            raise InputError(
                f"{width}x{height} would become {new[0]}x{new[1]}; expected sides of 1 to {LARGEST} pixels"
            )
        return new


LARGEST = 16384
"""Pixels a side, the most that H.264 and HEVC encoders take."""


def resized(source: Source, resize: Resize | None) -> Source:
    """`source` with frames of the size asked for, itself where that is its own.

    Raises:
        InputError: as `Resize.applied`.
    """
    if resize is None or resize.applied(source.info.width, source.info.height) == (
        source.info.width,
        source.info.height,
    ):
        return source
    return _ResizedSource(source, resize)


def scaled(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Picture or alpha at another size, (width, height): averaged where it shrinks, bicubic where it grows."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    shrinks = size[0] <= width and size[1] <= height
    return cast(Pixels, cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))


class _ResizedSource(SourceAround):
    def __init__(self, source: Source, resize: Resize) -> None:
        super().__init__(source)
        info = source.info
        width, height = self._size = resize.applied(info.width, info.height)
        aspect_ratio = info.sample_aspect_ratio
        if resize.size is not None:
            aspect_ratio *= Fraction(info.width * height, info.height * width)
        self._info = replace(info, width=width, height=height, sample_aspect_ratio=aspect_ratio)

    @property
    def info(self) -> SourceInfo:
        return self._info

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._source:
            alpha = None if frame.alpha is None else scaled(frame.alpha, self._size)
            yield replace(frame, pixels=scaled(frame.pixels, self._size), alpha=alpha)
