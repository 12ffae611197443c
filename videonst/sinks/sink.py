"""What every sink offers, and the one function that opens any of them."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from videonst.engines import FrameStore
from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sinks.space import LEAST_PICTURE_BITS, LEAST_VIDEO_BITS, check_space
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


@runtime_checkable
class Resumable(Protocol):
    """A sink that keeps what an interrupted run has finished."""

    def restore(self, engine: object) -> int:
        """How many frames an earlier run has finished; an engine with a memory (`Stateful`) gets the one that it had
        after them."""

    def remember(self, frame: Frame, engine: object) -> None:
        """To be called before `engine` repaints `frame`, by the thread that repaints: keeps its memory now and then."""

    def begins_part(self, frame: Frame) -> bool:
        """Whether memory is kept before `frame`; then no earlier frame may be left inside the engine."""

    def store(self) -> FrameStore | None:
        """Where an engine keeps single frames until they are finished here; None where nothing can be resumed."""


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
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
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
        settings: everything that decides what the frames look like. Where it is given, and the source can be read
            again, a video file or numbered pictures are written by a `Resumable` sink.
        resume: go on with what an interrupted run has finished, if input and settings are the same.

    Raises:
        InputError: a suffix that cannot be written or does not fit the source, a target that exists, is the source
            itself or cannot be created, a stream or transparency that it cannot hold, settings that the codec does not
            take, too little space, or nothing that can be resumed.
    """
    is_folder = str(path).endswith(("/", os.sep)) or (Path(path).is_dir() and Path(path).suffix not in VIDEO_SUFFIXES)
    path = Path(path)
    suffix = path.suffix.lower()
    if is_folder or (suffix in PICTURE_SUFFIXES and is_pattern(path)):
        from videonst.sinks.sequence import ImageSequenceSink

        if source is not None:
            check_space(path, source, LEAST_PICTURE_BITS)
        return ImageSequenceSink(path, source, drop=drop, settings=settings, resume=resume, overwrite=overwrite)
    is_resumable = source is not None and source.path is not None and not source.is_still and str(path) != "-"
    if resume and not is_resumable:
        raise InputError(
            "only a video or pictures read from files and written to files can be resumed; leave out --resume"
        )
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
    if source is not None and str(path) != "-":
        check_space(path, source, LEAST_VIDEO_BITS)
    from videonst.sinks.segments import SegmentedVideoSink, can_be_segmented
    from videonst.sinks.video import MUXERS, VideoFileSink

    if source is not None and is_resumable and settings is not None:
        if can_be_segmented(source, MUXERS[suffix], codec):
            return SegmentedVideoSink(
                path,
                source,
                drop=drop,
                codec=codec,
                crf=crf,
                preset=preset,
                options=options,
                settings=settings,
                resume=resume,
                overwrite=overwrite,
            )
        if resume:
            raise InputError("GIF and VP9 with transparency cannot be resumed; start over with --overwrite")
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
