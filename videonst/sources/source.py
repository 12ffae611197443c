"""What every source offers, and the one function that opens any of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.trim import WHOLE, Trim

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

HDR_CHOICES = ("tonemap", "error")


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before its frames are read.

    Attributes:
        path: the file, None where there is none.
        width: pixels of the upright picture.
        height: pixels of the upright picture.
        frame_count: as the container states it (of a part, as its duration suggests), None where it does not; the
            frames themselves decide.
        duration: seconds, None where unknown.
        average_rate: frames per second, None where unknown.
        sample_aspect_ratio: width of a pixel over its height as shown, 1 where the source does not say.
        is_still: a single picture.
        pixel_format: FFmpeg's name of the format in which the file stores its pictures, None where unknown.
        is_transparent: the first frame is not all opaque.
        part: what is taken of the file, seconds on the file's own clock; its start is that of the first frame, which
            is delivered as time 0.
    """

    path: Path | None
    width: int
    height: int
    frame_count: int | None = None
    duration: float | None = None
    average_rate: Fraction | None = None
    sample_aspect_ratio: Fraction = Fraction(1)
    is_still: bool = False
    pixel_format: str | None = None
    is_transparent: bool = False
    part: Trim = WHOLE


class Source(Protocol):
    """Yields its frames once, in presentation order. Closed by leaving its `with` block."""

    @property
    def info(self) -> SourceInfo: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(path: str | Path, trim: Trim = WHOLE, *, hdr: str = "tonemap") -> Source:
    """Opens a picture (by its suffix, see `PICTURE_SUFFIXES`) or else a video file.

    Args:
        path: the file.
        trim: the part of a video to take, counted from where its sound or picture starts.
        hdr: of `HDR_CHOICES`: "tonemap" maps the colours of PQ and HLG clips to BT.709, "error" refuses such clips.

    Raises:
        InputError: no such file, nothing in it that can be shown, no frame in the part to take, or HDR refused.
    """
    if hdr not in HDR_CHOICES:
        raise InputError(f"cannot treat HDR by {hdr!r}; expected one of {', '.join(HDR_CHOICES)}")
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a video or picture file")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        if trim != WHOLE:
            raise InputError(f"{path} is a picture and has no duration; leave out start, end and duration")
        from videonst.sources.image import ImageFileSource

        return ImageFileSource(path)
    from videonst.sources.video import VideoFileSource

    return VideoFileSource(path, trim, hdr=hdr)
