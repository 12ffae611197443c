"""What every source offers, and the one function that opens any of them."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable
from urllib.parse import urlsplit

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sources.damage import Damage
from videonst.trim import WHOLE, Trim

if TYPE_CHECKING:
    from videonst.sources.passing import PassingStreams

_log = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

ADDRESS_SCHEMES = ("rtsp", "rtsps", "http", "https", "udp", "rtp", "tcp", "rtmp", "rtmps", "srt")

DEFAULT_RATE = Fraction(25)
"""Frames per second of numbered pictures, FFmpeg's own default."""
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
        is_sequence: numbered pictures.
        pixel_format: FFmpeg's name of the format in which the file stores its pictures, None where unknown.
        is_transparent: the first frame is not all opaque.
        part: what is taken of the file, seconds on the file's own clock; its start is that of the first frame, which
            is delivered as time 0.
        passing: the other streams of what can be read only once (standard input, network).
        damage: what could not be read, complete when the frames and other streams have been read.
    """

    path: Path | None
    width: int
    height: int
    frame_count: int | None = None
    duration: float | None = None
    average_rate: Fraction | None = None
    sample_aspect_ratio: Fraction = Fraction(1)
    is_still: bool = False
    is_sequence: bool = False
    pixel_format: str | None = None
    is_transparent: bool = False
    part: Trim = WHOLE
    passing: "PassingStreams | None" = None
    damage: Damage = field(default_factory=Damage, compare=False)


class Source(Protocol):
    """Yields its frames once, in presentation order. Closed by leaving its `with` block."""

    @property
    def info(self) -> SourceInfo: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Stoppable(Protocol):
    """A source that may wait for its next frame without end."""

    def stop(self) -> None:
        """Ends the waiting soon; from any thread."""


def is_address(text: str | Path) -> bool:
    """Whether `text` is a network address and no file."""
    return urlsplit(str(text)).scheme.lower() in ADDRESS_SCHEMES and "://" in str(text)


def open_source(
    path: str | Path,
    trim: Trim = WHOLE,
    *,
    rate: Fraction | None = None,
    hdr: str = "tonemap",
    strict: bool = False,
    timeout: float | None = None,
    hwaccel: str | None = None,
) -> Source:
    """Opens whatever frames come from, by the look of its name.

    Args:
        path: a picture (by its suffix, see `PICTURE_SUFFIXES`), a folder of pictures or a pattern of numbered ones
            (`frame_%05d.png`), "-" for standard input, a network address (`ADDRESS_SCHEMES`), or else a video file.
        trim: the part to take, counted from where sound or picture starts.
        rate: frames per second of numbered pictures; `DEFAULT_RATE` where None.
        hdr: of `HDR_CHOICES`: "tonemap" maps the colours of PQ and HLG clips to BT.709, "error" refuses such clips.
        strict: damage is an error (`DamagedInputError`, while iterating) instead of a warning.
        timeout: seconds to wait for a network address; None takes `DEFAULT_TIMEOUT`.
        hwaccel: device that decodes video files, as FFmpeg names it, such as "cuda" (see `videonst.sources.hardware`).
            What it does not decode as software does, and all that is no video file, is decoded in software, with a
            warning.

    Raises:
        InputError: no such file, nothing in it that can be shown, no frame in the part to take, HDR refused, or no
            such device here.
    """
    if hdr not in HDR_CHOICES:
        raise InputError(f"cannot treat HDR by {hdr!r}; expected one of {', '.join(HDR_CHOICES)}")
    if hwaccel is not None:
        from videonst.sources.hardware import check_hardware

        check_hardware(hwaccel, strict=strict)
    damage = Damage(strict=strict)
    source = _opened_elsewhere(path, trim, rate, damage, hdr, timeout)
    if source is None:
        return _open_video(Path(path), trim, damage, hdr, hwaccel)
    if hwaccel is not None:
        _log.warning("%s decodes video files only; what is read here is decoded in software", hwaccel)
    return source


def _opened_elsewhere(
    path: str | Path, trim: Trim, rate: Fraction | None, damage: Damage, hdr: str, timeout: float | None
) -> Source | None:
    """None of a video file, which is what remains."""
    if is_address(path):
        from videonst.sources.network import DEFAULT_TIMEOUT, open_address

        return open_address(str(path), timeout=timeout or DEFAULT_TIMEOUT, trim=trim, damage=damage, hdr=hdr)
    if str(path) == "-":
        from videonst.sources.passing import StandardInput

        return StandardInput(trim, damage, hdr=hdr)
    path = Path(path)
    if path.is_dir() or (not path.exists() and is_pattern(path)):
        from videonst.sources.sequence import ImageSequenceSource

        return ImageSequenceSource(path, trim, rate=DEFAULT_RATE if rate is None else rate, damage=damage)
    if rate is not None:
        raise InputError(f"{path} is one file and has its own frame rate; rate is for numbered pictures")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        from videonst.sources.animation import AnimatedWebPSource, is_animated_png, is_animated_webp

        if is_animated_webp(path):
            return AnimatedWebPSource(path, trim)
        if not is_animated_png(path):
            if trim != WHOLE:
                raise InputError(f"{path} is a picture and has no duration; leave out start, end and duration")
            from videonst.sources.image import ImageFileSource

            try:
                return ImageFileSource(path)
            except InputError:
                if not _is_video(path):
                    raise
    return None


def _open_video(path: Path, trim: Trim, damage: Damage, hdr: str, hwaccel: str | None) -> Source:
    from videonst.sources.video import VideoFileSource

    hardware = None
    if hwaccel is not None:
        from videonst.sources.hardware import hardware_for

        hardware = hardware_for(path, hwaccel)
    return VideoFileSource(path, trim, damage, hdr=hdr, hardware=hardware)


def _is_video(path: Path) -> bool:
    """What a file is counts, not its suffix."""
    from videonst.sources.video import open_container

    try:
        with open_container(path) as container:
            return "pipe" not in container.format.name and container.format.name != "image2"
    except InputError:
        return False


def is_pattern(path: Path) -> bool:
    """Whether the name holds a place for a number, such as `%d` or `%05d`."""
    return NUMBER.search(path.name) is not None


NUMBER = re.compile(r"%(0?)(\d*)d")
"""printf's integer conversion: zero-padded or not, and how wide."""
