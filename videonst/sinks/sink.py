"""What every sink offers, and the one function that opens any of them."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sinks.stdout import DEFAULT_STREAM_FORMAT
from videonst.sources import SourceInfo
from videonst.sources.source import is_pattern

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".gif")


class Sink(Protocol):
    """Takes frames in presentation order. The output appears, complete, when the `with` block ends well;
    where the block ends in an exception nothing appears and what was there before stays."""

    def write(self, frame: Frame) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_sink(
    path: str | Path,
    source: SourceInfo | None = None,
    *,
    drop: Collection[str] = (),
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    options: Mapping[str, str] | None = None,
    overwrite: bool = False,
    stream_format: str = DEFAULT_STREAM_FORMAT,
) -> Sink:
    """Opens a picture or video file by its suffix. Everything that can be refused is refused here, before any work.

    Args:
        path: what to write: `VIDEO_SUFFIXES` or `PICTURE_SUFFIXES`; numbered pictures by a pattern (`out_%05d.png`) or
            a folder (`out/`); "-" for standard output.
        source: where the frames come from; its other streams, chapters and metadata are copied, packet by packet
            (video only), and it is never overwritten.
        drop: what not to copy: "audio", "subtitles", "data", "attachments" (cover art included), "alpha".
        codec, crf, preset, options: how video is encoded, see `Encoder`; None takes defaults.
        overwrite: replace an existing file.
        stream_format: what to write to standard output, of `STREAMED_FORMATS`.

    Raises:
        InputError: a suffix that cannot be written or does not fit the source, a target that exists, is the source
            itself or cannot be created, a stream or transparency that it cannot hold, settings that
            the codec does not take.
    """
    is_folder = str(path).endswith(("/", os.sep)) or (Path(path).is_dir() and Path(path).suffix not in VIDEO_SUFFIXES)
    path = Path(path)
    suffix = path.suffix.lower()
    if is_folder or (suffix in PICTURE_SUFFIXES and is_pattern(path)):
        from videonst.sinks.sequence import ImageSequenceSink

        return ImageSequenceSink(path, source, drop=drop, overwrite=overwrite)
    if str(path) == "-" and source is not None and source.is_still:
        raise InputError("the input is a picture, which standard output (-) does not take; name a file")
    if str(path) != "-" and suffix not in (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES):
        raise InputError(
            f"cannot write {path.name!r}: unknown suffix {path.suffix!r}; "
            f"use {', '.join(VIDEO_SUFFIXES)} for video or {', '.join(PICTURE_SUFFIXES)} for a picture"
        )
    if source is not None and source.is_still != (suffix in PICTURE_SUFFIXES):
        kind, suffixes = ("picture", PICTURE_SUFFIXES) if source.is_still else ("video", VIDEO_SUFFIXES)
        raise InputError(f"the input is a {kind}, so {path.name!r} cannot hold it; use one of {', '.join(suffixes)}")
    if suffix in PICTURE_SUFFIXES:
        from videonst.sinks.image import ImageFileSink

        return ImageFileSink(path, source, drop=drop, overwrite=overwrite)
    from videonst.sinks.video import VideoFileSink

    return VideoFileSink(
        path,
        source,
        drop=drop,
        codec=codec,
        crf=crf,
        preset=preset,
        options=options,
        overwrite=overwrite,
        stream_format=stream_format,
    )
