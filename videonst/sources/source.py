"""What every source offers, and the one function that opens any of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from videonst.errors import InputError
from videonst.frame import Frame

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before its frames are read.

    Attributes:
        path: the file, None where there is none.
        width: pixels of the upright picture.
        height: pixels of the upright picture.
        frame_count: as the container states it, None where it does not; the frames themselves decide.
        duration: seconds, None where unknown.
        average_rate: frames per second, None where unknown.
        sample_aspect_ratio: width of a pixel over its height as shown, 1 where the source does not say.
        is_still: a single picture.
    """

    path: Path | None
    width: int
    height: int
    frame_count: int | None = None
    duration: float | None = None
    average_rate: Fraction | None = None
    sample_aspect_ratio: Fraction = Fraction(1)
    is_still: bool = False


class Source(Protocol):
    """Yields its frames once, in presentation order. Closed by leaving its `with` block."""

    @property
    def info(self) -> SourceInfo: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(path: str | Path) -> Source:
    """Opens a picture (by its suffix, see `PICTURE_SUFFIXES`) or else a video file.

    Raises:
        InputError: no such file, or nothing in it that can be shown.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a video or picture file")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        from videonst.sources.image import ImageFileSource

        return ImageFileSource(path)
    from videonst.sources.video import VideoFileSource

    return VideoFileSource(path)
