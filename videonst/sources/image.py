"""A single picture as a source of one frame."""

import logging
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

_log = logging.getLogger(__name__)

_Samples = npt.NDArray[Any]


class ImageFileSource:
    """A picture file: upright (Exif orientation applied), 8-bit RGB, transparency laid over white.

    Raises:
        InputError: not a picture that OpenCV reads.
    """

    def __init__(self, path: Path) -> None:
        self._pixels = read_picture(path)
        height, width = self._pixels.shape[:2]
        self.info = SourceInfo(path, width, height, frame_count=1, is_still=True)

    def __iter__(self) -> Iterator[Frame]:
        yield Frame(self._pixels)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def read_picture(path: Path) -> Pixels:
    """Upright 8-bit RGB, (height, width, 3), transparency laid over white.

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
    if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
        upright = _over_white(path, upright, stored)
    return np.ascontiguousarray(upright[..., ::-1])


def _decode(encoded: npt.NDArray[np.uint8], flags: int) -> _Samples | None:
    try:
        return cv2.imdecode(encoded, flags)
    except cv2.error:
        return None


def _over_white(path: Path, upright: _Samples, stored: _Samples) -> Pixels:
    """Lays transparent pixels over white. OpenCV turns colours upright but never alpha, hence the comparison."""
    if stored.dtype == np.uint16:
        stored = stored >> 8
    alpha = stored[..., 3:].astype(np.float32) / 255
    if alpha.min() == 1:
        return upright.astype(np.uint8)
    if not np.array_equal(stored[..., :3], upright):
        raise InputError(f"{path} is both transparent and tagged as rotated; save it upright or without transparency")
    _log.warning("%s: transparent pixels are laid over white", path)
    flat: Pixels = np.rint(upright * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return flat
