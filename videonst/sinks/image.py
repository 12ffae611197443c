"""A picture file as a sink of one frame."""

from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import cv2
import numpy as np

from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame, Pixels
from videonst.sinks.part_file import PartFile
from videonst.sources import SourceInfo

QUALITY = 95
"""Of 100, for JPEG and WebP. OpenCV's own default for JPEG, above which files grow faster than they improve."""


_ALPHA_SUFFIXES = (".png", ".webp")


class ImageFileSink:
    """Writes one frame as PNG, JPEG or WebP, by the suffix, with alpha unless "alpha" is to be dropped.

    Raises:
        InputError: a target that cannot be written, see `PartFile`, or cannot hold the source's transparency.
        VideoNSTError: not exactly one frame was written, or the disk failed.
    """

    def __init__(
        self, path: Path, source: SourceInfo | None = None, *, drop: Collection[str] = (), overwrite: bool = False
    ) -> None:
        check_alpha(path, source, drop)
        self._keep_alpha = "alpha" not in drop
        self._part = PartFile(path, source.path if source else None, overwrite=overwrite)
        self._written = False

    def write(self, frame: Frame) -> None:
        if self._written:
            raise VideoNSTError(f"{self._part.target} is a picture and holds one frame, but a second one came")
        with self._part.writing():
            kept = frame if self._keep_alpha else frame.over_white()
            self._part.path.write_bytes(encode_picture(kept, self._part.target.suffix))
        self._written = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                if not self._written:
                    raise VideoNSTError(f"no frame came, so {self._part.target} was not written")
                self._part.commit()
        finally:
            self._part.discard()


def check_alpha(path: Path, source: SourceInfo | None, drop: Collection[str]) -> None:
    """Refuses what would lose the source's transparency unasked."""
    if source and source.is_transparent and "alpha" not in drop and path.suffix.lower() not in _ALPHA_SUFFIXES:
        raise InputError(
            f"{path.suffix} cannot hold the transparency of the input; write {' or '.join(_ALPHA_SUFFIXES)} instead, "
            "or lay it over white with --drop alpha"
        )


def encode_picture(frame: Frame, suffix: str) -> bytes:
    """The frame as a file of one of `PICTURE_SUFFIXES`, with alpha, or laid over white where that has none."""
    suffix = suffix.lower()
    key = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".jpeg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
    options = [key[suffix], QUALITY] if suffix in key else []
    if frame.is_transparent and suffix in _ALPHA_SUFFIXES:
        samples = np.dstack((frame.pixels[..., ::-1], cast(Pixels, frame.alpha)))
    else:
        samples = frame.over_white().pixels[..., ::-1]
    _, encoded = cv2.imencode(suffix, samples, options)
    return encoded.tobytes()
