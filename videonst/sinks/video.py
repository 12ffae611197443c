"""A video file as a sink of frames."""

import contextlib
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from videonst.av_frame import FrameConverter, has_alpha, written_tags
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.sinks.encoder import Encoder
from videonst.sinks.part_file import Output, PartFile
from videonst.sinks.stdout import DEFAULT_STREAM_FORMAT, STREAMED_FORMATS, StandardOutput
from videonst.sinks.streams import StreamCopy, open_streams
from videonst.sources import SourceInfo

_log = logging.getLogger(__name__)

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
        self._stored = source.pixel_format if source else None
        self._encoder = Encoder(
            codec, self._muxer, crf=crf, preset=preset, options=options, keep_alpha="alpha" not in drop
        )
        self._check(source)
        self._rate = source.average_rate if source else None
        self._aspect_ratio = source.sample_aspect_ratio if source else Fraction(1)
        self._part: Output = (
            StandardOutput() if is_stdout else PartFile(path, source.path if source else None, overwrite=overwrite)
        )
        self._others: StreamCopy | None = None
        self._container: OutputContainer | None = None
        self._converter = FrameConverter()
        self._last_time: Fraction | None = None
        self._is_thinned = False
        self._durations: dict[int | None, int] = {}
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
            if (frame.width, frame.height) != (self._stream.width, self._stream.height):
                raise VideoNSTError(
                    f"the picture size changed from {self._stream.width}x{self._stream.height} to "
                    f"{frame.width}x{frame.height} at {float(frame.time):.3f} s; one file holds one size"
                )
            if self._last_time is not None and frame.time <= self._last_time:
                raise VideoNSTError(
                    f"a frame at {float(frame.time):.3f} s came after one at {float(self._last_time):.3f} s; "
                    "frames must come in presentation order"
                )
            if self._muxer == "gif" and self._is_too_soon(frame):
                return
            self._last_time = frame.time
            self._report_lost_alpha(frame)
            self._durations[frame.pts] = frame.duration
            picture = self._converter.to_av(replace(frame, colour=self._colour), self._pixel_format)
            self._mux(self._stream.encode(picture))

    def _check(self, source: SourceInfo | None) -> None:
        """Refuses what the encoder cannot do with frames of this source."""
        if source is None:
            width, height, alpha = *_TRIAL_SIZE, False
        else:
            width, height = source.width, source.height
            alpha = source.pixel_format is not None and has_alpha(VideoFormat(source.pixel_format))
            if source.is_transparent and "alpha" not in self._drop and not self._encoder.holds_alpha:
                raise InputError(
                    f"{self._encoder.name} in {self._muxer} cannot hold the transparency of the input; write .webm, "
                    ".mov with --codec prores, or .mkv with --codec ffv1, or lay it over white with --drop alpha"
                )
        self._encoder.check(self._encoder.pixel_format(self._stored, width, height, alpha=alpha), width, height)

    def _is_too_soon(self, frame: Frame) -> bool:
        """GIF counts in 1/100 s, and players show a picture of less than two of them for ten."""
        if self._last_time is None or frame.time - self._last_time >= _GIF_INTERVAL:
            return False
        if not self._is_thinned:
            _log.warning("GIF shows 50 pictures a second at most; %s leaves out frames in between", self._part.target)
        self._is_thinned = True
        return True

    def _report_lost_alpha(self, frame: Frame) -> None:
        """A clip whose first frame is opaque may turn transparent later."""
        if frame.alpha is None or "alpha" in self._drop or has_alpha(VideoFormat(self._pixel_format)):
            return
        if frame.is_transparent:
            self._drop = (*self._drop, "alpha")
            _log.warning("%s cannot hold transparency, which is laid over white", self._part.target)

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
        options = {}
        if isinstance(self._part, StandardOutput):
            options = self._part.options(self._muxer)
        elif self._muxer in ("mp4", "mov"):
            options = {"movflags": "+faststart", "movie_timescale": str(self._movie_timescale(frame.time_base))}
        self._container = av.open(self._part.url, "w", format=self._muxer, options=options)
        seconds = frame.duration * frame.time_base
        rate = self._rate or (1 / seconds if seconds else _DEFAULT_RATE)
        self._pixel_format = self._encoder.pixel_format(
            self._stored, frame.width, frame.height, alpha=frame.alpha is not None
        )
        self._colour = written_tags(frame.colour, frame.height, self._pixel_format)
        self._stream = self._encoder.add_stream(
            self._container,
            pixel_format=self._pixel_format,
            size=(frame.width, frame.height),
            time_base=frame.time_base,
            rate=rate,
            aspect_ratio=self._aspect_ratio,
            colour=self._colour,
        )
        if self._others:
            self._others.start(self._container, self._stream)

    def _movie_timescale(self, time_base: Fraction) -> int:
        """Units per second in which MP4 notes where each track starts; FFmpeg's 1000 would round an offset to 1 ms."""
        exact = math.lcm(time_base.denominator, *(self._others.sample_rates if self._others else ()))
        return exact if exact < _INT32_MAX else time_base.denominator

    def _mux(self, packets: list["Packet[VideoStream]"]) -> None:
        """Writes encoded video, and the other streams up to the same moment before it. Not all encoders know durations
        that vary."""
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            if self._others and packet.dts is not None:
                self._others.copy_until(Fraction(packet.dts * packet.time_base))
            cast(OutputContainer, self._container).mux_one(packet)

    def _finish(self) -> None:
        if self._container is None:
            raise VideoNSTError(f"no frames came, so {self._part.target} was not written")
        with self._writing():
            self._mux(self._stream.encode(None))
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


_TRIAL_SIZE = (256, 256)
"""Pixels, where the size of the frames is not known yet; hardware encoders refuse less than about 145."""

_GIF_INTERVAL = Fraction(2, 100)
"""Seconds from one picture to the next at least."""

_INT32_MAX = 2**31 - 1

_DEFAULT_RATE = Fraction(25)
"""Frames per second told to x264 where nothing is known; it only guides rate control, times are the frames' own."""
