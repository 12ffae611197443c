"""A single picture as a source of one frame."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from videonst.errors import InputError
from videonst.frame import Frame, Pixels
from videonst.sources.source import SourceInfo

_Samples = npt.NDArray[Any]


class ImageFileSource:
    """A picture file: upright (Exif orientation applied), 8-bit RGB, with alpha where it has it.

    Raises:
        InputError: not a picture that OpenCV reads.
    """

    def __init__(self, path: Path) -> None:
        self._frame = read_picture(path)
        self.info = SourceInfo(
            path,
            self._frame.width,
            self._frame.height,
            frame_count=1,
            is_still=True,
            is_transparent=self._frame.is_transparent,
        )

    def __iter__(self) -> Iterator[Frame]:
        yield self._frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def read_picture(path: Path) -> Frame:
    """The picture, upright, at time 0.

    Raises:
        InputError: not a picture that OpenCV reads.
    """
    try:
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    upright = _decode(encoded, cv2.IMREAD_COLOR)
    if upright is None:
        raise InputError(f"{path} is not a picture that can be read; expected 8 or 16-bit PNG, JPEG, WebP, BMP or TIFF")
    stored = _decode(encoded, cv2.IMREAD_UNCHANGED)
    alpha = None
    if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
        alpha = _alpha(path, upright, stored)
    return Frame(np.ascontiguousarray(upright[..., ::-1]), alpha=alpha)


def _decode(encoded: npt.NDArray[np.uint8], flags: int) -> _Samples | None:
    try:
        return cv2.imdecode(encoded, flags)
    except cv2.error:
        return None


def _alpha(path: Path, upright: _Samples, stored: _Samples) -> Pixels | None:
    """Opacity, None where all is opaque. OpenCV turns colours upright but never alpha, hence the comparison."""
    if stored.dtype == np.uint16:
        stored = stored >> 8
    alpha = stored[..., 3]
    if alpha.min() == 255:
        return None
    if not np.array_equal(stored[..., :3], upright):
        raise InputError(f"{path} is both transparent and tagged as rotated; save it upright or without transparency")
    return np.ascontiguousarray(alpha, np.uint8)
