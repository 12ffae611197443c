"""A video file as a sink of frames."""

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from videonst.av_frame import has_alpha
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.sinks.encoder import Encoder
from videonst.sinks.frame_encoder import FrameEncoder, VideoKind
from videonst.sinks.part_file import Output, PartFile
from videonst.sinks.stdout import DEFAULT_STREAM_FORMAT, STREAMED_FORMATS, StandardOutput
from videonst.sinks.streams import StreamCopy, open_streams
from videonst.sources import SourceInfo

MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".gif": "gif"}


class VideoFileSink:
    """Writes video at the presentation times of the frames, and copies the source's other streams, chapters and
    metadata.

    Colours are tagged as they are written: with the tags of the first frame, or what stands for missing ones
    (`written_tags`). The pixel format is that of `Encoder.pixel_format`. Times are exact in MP4 and
    MOV. MKV counts milliseconds from zero: times are rounded, and where the sound starts before zero, as AAC does,
    picture and sound move together by that much (21 ms).

    Raises:
        InputError: a target that cannot be written (see `PartFile`), a stream or transparency that the container cannot
            hold, settings that the codec does not take (see `Encoder`).
        VideoNSTError: while writing or closing: no frames came, their size or order changed, or the disk failed.
    """

    def __init__(
        self,
        path: Path,
        source: SourceInfo | None = None,
        *,
        drop: Collection[str] = (),
        codec: str | None = None,
        crf: float | None = None,
        preset: str | None = None,
        options: Mapping[str, str] | None = None,
        overwrite: bool = False,
        stream_format: str = DEFAULT_STREAM_FORMAT,
    ) -> None:
        is_stdout = str(path) == "-"
        if is_stdout and stream_format not in STREAMED_FORMATS:
            raise InputError(f"unknown format {stream_format!r}; expected one of {', '.join(STREAMED_FORMATS)}")
        self._muxer = STREAMED_FORMATS[stream_format] if is_stdout else MUXERS[path.suffix.lower()]
        self._drop = drop
        self._source = source
        self._encoder = checked_encoder(
            source, self._muxer, drop=drop, codec=codec, crf=crf, preset=preset, options=options
        )
        self._part: Output = (
            StandardOutput() if is_stdout else PartFile(path, source.path if source else None, overwrite=overwrite)
        )
        self._others: StreamCopy | None = None
        self._container: OutputContainer | None = None
        muxers = {f".{name}": muxer for name, muxer in STREAMED_FORMATS.items()} if is_stdout else MUXERS
        try:
            if source:
                self._others = open_streams(source, Path(f"-.{stream_format}") if is_stdout else path, muxers, drop)
        except BaseException:
            self._part.discard()
            raise

    def write(self, frame: Frame) -> None:
        with self._writing():
            if self._container is None:
                self._start(frame)
            self._mux(self._frames.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
                self._part.commit()
        finally:
            self._close()
            self._part.discard()

    def _start(self, frame: Frame) -> None:
        """Sets the encoder up after the first frame."""
        if isinstance(self._part, StandardOutput):
            options = self._part.options(self._muxer)
        else:
            options = muxer_options(self._muxer, frame.time_base, self._others)
        self._container = av.open(self._part.url, "w", format=self._muxer, options=options)
        kind = VideoKind.of(frame)
        self._frames = FrameEncoder(self._container, self._encoder, self._source, kind, self._part.target, self._drop)
        if self._others:
            self._others.start(self._container, self._frames.stream)

    def _mux(self, packets: list["Packet[VideoStream]"]) -> None:
        """Writes encoded video, and the other streams up to the same moment before it."""
        for packet in packets:
            if self._others and packet.dts is not None:
                self._others.copy_until(Fraction(packet.dts * packet.time_base))
            cast(OutputContainer, self._container).mux_one(packet)

    def _finish(self) -> None:
        if self._container is None:
            raise VideoNSTError(f"no frames came, so {self._part.target} was not written")
        with self._writing():
            self._mux(self._frames.flush())
            if self._others:
                self._others.copy_until(None)
            self._container.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._part.writing():
                yield
        except av.FFmpegError as error:
            raise VideoNSTError(
                f"cannot encode {self._part.target}: {error.strerror}; check that the input plays"
            ) from error

    def _close(self) -> None:
        """Lets go of both files; after a failure the output container cannot be closed without a second one."""
        if self._others:
            self._others.close()
        if self._container is not None:
            with contextlib.suppress(av.FFmpegError, OSError):
                self._container.close()


def checked_encoder(
    source: SourceInfo | None,
    muxer: str,
    *,
    drop: Collection[str],
    codec: str | None,
    crf: float | None,
    preset: str | None,
    options: Mapping[str, str] | None,
) -> Encoder:
    """The encoder for frames of this source, tried once.

    Raises:
        InputError: settings that it does not take, transparency that it cannot hold, or it does not work here.
    """
    encoder = Encoder(codec, muxer, crf=crf, preset=preset, options=options, keep_alpha="alpha" not in drop)
    if source is None:
        stored, width, height, alpha = None, *_TRIAL_SIZE, False
    else:
        stored, width, height = source.pixel_format, source.width, source.height
        alpha = stored is not None and has_alpha(VideoFormat(stored))
        if source.is_transparent and "alpha" not in drop and not encoder.holds_alpha:
            raise InputError(
                f"{encoder.name} in {muxer} cannot hold the transparency of the input; write .webm, "
                ".mov with --codec prores, or .mkv with --codec ffv1, or lay it over white with --drop alpha"
            )
    encoder.check(encoder.pixel_format(stored, width, height, alpha=alpha), width, height)
    return encoder


def muxer_options(muxer: str, time_base: Fraction, others: StreamCopy | None) -> dict[str, str]:
    """FFmpeg's options for a file. MP4 notes where each track starts in units of the movie; FFmpeg's 1/1000 s would
    round that."""
    if muxer not in ("mp4", "mov"):
        return {}
    exact = math.lcm(time_base.denominator, *(others.sample_rates if others else ()))
    return {
        "movflags": "+faststart",
        "movie_timescale": str(exact if exact < _INT32_MAX else time_base.denominator),
    }


_TRIAL_SIZE = (256, 256)
"""Pixels, where the size of the frames is not known yet; hardware encoders refuse less than about 145."""

_INT32_MAX = 2**31 - 1
