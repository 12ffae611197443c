"""Animated pictures: which files are, and animated WebP, which FFmpeg does not decode, as a source of frames."""

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sources.source import SourceInfo
from videonst.trim import WHOLE, Trim


class AnimatedWebPSource:
    """An animated WebP file: its frames as shown, composed, with alpha. All are held in memory, 4 bytes a pixel.

    Raises:
        InputError: OpenCV cannot read it, or no frame in the part to take.
    """

    def __init__(self, path: Path, trim: Trim = WHOLE) -> None:
        if not hasattr(cv2, "imreadanimation"):
            raise InputError(f"{path} is an animated WebP, which needs OpenCV 4.11 or newer; upgrade opencv-python")
        is_read, animation = cv2.imreadanimation(str(path))
        if not is_read or not animation.frames:
            raise InputError(f"{path} is an animated WebP that cannot be read; check that the file is complete")
        durations = [max(1, int(duration)) for duration in animation.durations]
        ends = list(itertools.accumulate(durations))
        start, end = ((time or 0) * _UNITS for time in (trim.start, trim.end))
        self._end = ends[-1] if trim.end is None else min(ends[-1], math.ceil(end))
        self._shown = [
            (begin, np.asarray(picture, np.uint8))
            for begin, picture in zip((0, *ends), animation.frames, strict=False)
            if start <= begin < self._end
        ]
        if not self._shown:
            raise InputError(f"{path} has no frame in the part to take; it lasts {ends[-1] / _UNITS:g} s")
        self._offset = self._shown[0][0] if trim.start is not None else 0
        first = next(iter(self))
        length = self._end - self._shown[0][0]
        self.info = SourceInfo(
            path,
            first.width,
            first.height,
            frame_count=len(self._shown),
            duration=length / _UNITS,
            average_rate=Fraction(len(self._shown) * _UNITS, length),
            pixel_format="bgra" if first.alpha is not None else "bgr24",
            is_transparent=first.is_transparent,
            part=trim,
        )

    def __iter__(self) -> Iterator[Frame]:
        ends = [*(begin for begin, _ in self._shown[1:]), self._end]
        for (begin, picture), end in zip(self._shown, ends, strict=True):
            alpha = np.ascontiguousarray(picture[..., 3]) if picture.shape[2] == 4 else None
            pixels = np.ascontiguousarray(picture[..., 2::-1])
            yield Frame(pixels, begin - self._offset, Fraction(1, _UNITS), end - begin, alpha=alpha)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


_UNITS = 1000
"""Of time in a second, as WebP counts."""


def is_animated_webp(path: Path) -> bool:
    """The animation flag of the extended header (RFC 9649, section 2.7)."""
    header = _beginning(path, 21)
    return header[:4] == b"RIFF" and header[8:16] == b"WEBPVP8X" and bool(header[20] & 0x02)


def is_animated_png(path: Path) -> bool:
    """An `acTL` chunk before the first `IDAT` (PNG, third edition, 11.3.6.1)."""
    content = _beginning(path, _PNG_HEADERS)
    return content[:8] == b"\x89PNG\r\n\x1a\n" and b"acTL" in content.partition(b"IDAT")[0]


_PNG_HEADERS = 1 << 20
"""Bytes in which the chunks before the first picture are looked for; a colour profile can take many."""


def _beginning(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
