"""A picture file as a sink of one frame."""

from pathlib import Path
from types import TracebackType
from typing import Self

import cv2

from videonst.errors import VideoNSTError
from videonst.frame import Frame
from videonst.sinks.part_file import PartFile
from videonst.sources import SourceInfo

QUALITY = 95
"""Of 100, for JPEG and WebP. OpenCV's own default for JPEG, above which files grow faster than they improve."""


class ImageFileSink:
    """Writes one frame as PNG, JPEG or WebP, by the suffix.

    Raises:
        InputError: a target that cannot be written, see `PartFile`.
        VideoNSTError: not exactly one frame was written, or the disk failed.
    """

    def __init__(self, path: Path, source: SourceInfo | None = None, *, overwrite: bool = False) -> None:
        self._part = PartFile(path, source.path if source else None, overwrite=overwrite)
        self._written = False

    def write(self, frame: Frame) -> None:
        if self._written:
            raise VideoNSTError(f"{self._part.target} is a picture and holds one frame, but a second one came")
        with self._part.writing():
            self._part.path.write_bytes(encode_picture(frame, self._part.target.suffix))
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


def encode_picture(frame: Frame, suffix: str) -> bytes:
    """The frame as a file of one of `PICTURE_SUFFIXES`."""
    suffix = suffix.lower()
    key = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".jpeg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
    options = [key[suffix], QUALITY] if suffix in key else []
    _, encoded = cv2.imencode(suffix, frame.pixels[..., ::-1], options)
    return encoded.tobytes()
