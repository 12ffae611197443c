"""A video file as a sink of frames."""

import contextlib
import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
from av.codec.context import Flags
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from videonst.av_frame import FrameConverter, set_tags, written_tags
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.sinks.part_file import Output, PartFile
from videonst.sinks.stdout import DEFAULT_STREAM_FORMAT, STREAMED_FORMATS, StandardOutput
from videonst.sinks.streams import StreamCopy, open_streams
from videonst.sources import SourceInfo

MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
MAX_CRF = 51


class VideoFileSink:
    """Writes H.264 with x264, at the presentation times of the frames, and copies the source's other
    streams, chapters and metadata.

    Colours are tagged as they are written: with the tags of the first frame, or what stands for missing ones
    (`written_tags`). Chroma is 4:2:0, or 4:4:4 for odd sizes, so that nothing is cropped. Times are exact in MP4 and
    MOV. MKV counts milliseconds from zero: times are rounded, and where the sound starts before zero, as AAC does,
    picture and sound move together by that much (21 ms).

    Raises:
        InputError: a target that cannot be written (see `PartFile`), a stream that the container cannot hold, a `crf`
            or `preset` that x264 does not have.
        VideoNSTError: while writing or closing: no frames came, their size or order changed, or the disk failed.
    """

    def __init__(
        self,
        path: Path,
        source: SourceInfo | None = None,
        *,
        drop: Collection[str] = (),
        crf: float = 18,
        preset: str = "veryfast",
        overwrite: bool = False,
        stream_format: str = DEFAULT_STREAM_FORMAT,
    ) -> None:
        is_stdout = str(path) == "-"
        if is_stdout and stream_format not in STREAMED_FORMATS:
            raise InputError(f"unknown format {stream_format!r}; expected one of {', '.join(STREAMED_FORMATS)}")
        self.check(crf=crf, preset=preset)
        self._options = {"crf": f"{crf:g}", "preset": preset}
        self._muxer = STREAMED_FORMATS[stream_format] if is_stdout else MUXERS[path.suffix.lower()]
        self._rate = source.average_rate if source else None
        self._aspect_ratio = source.sample_aspect_ratio if source else Fraction(1)
        self._part: Output = (
            StandardOutput() if is_stdout else PartFile(path, source.path if source else None, overwrite=overwrite)
        )
        self._others: StreamCopy | None = None
        self._container: OutputContainer | None = None
        self._converter = FrameConverter()
        self._last_time: Fraction | None = None
        muxers = {f".{name}": muxer for name, muxer in STREAMED_FORMATS.items()} if is_stdout else MUXERS
        try:
            if source:
                self._others = open_streams(source, Path(f"-.{stream_format}") if is_stdout else path, muxers, drop)
        except BaseException:
            self._part.discard()
            raise

    @staticmethod
    def check(*, crf: float, preset: str, **_: object) -> None:
        """Refuses what x264 does not have.

        Raises:
            InputError: a `crf` or `preset` out of range.
        """
        if not 0 <= crf <= MAX_CRF:
            raise InputError(f"crf {crf:g} is out of range; expected 0 (lossless) to {MAX_CRF} (worst)")
        if preset not in PRESETS:
            raise InputError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")

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
            self._last_time = frame.time
            picture = self._converter.to_av(replace(frame, colour=self._colour), self._pixel_format)
            self._mux(self._stream.encode(picture))

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
        seconds = frame.duration * frame.time_base
        rate = self._rate or (1 / seconds if seconds else _DEFAULT_RATE)
        self._stream = self._container.add_stream("libx264", rate=rate, options=self._options)
        self._stream.width, self._stream.height = frame.width, frame.height
        self._pixel_format = "yuv444p" if frame.width % 2 or frame.height % 2 else "yuv420p"
        self._stream.pix_fmt = self._pixel_format
        encoder = self._stream.codec_context
        encoder.time_base = frame.time_base
        encoder.sample_aspect_ratio = self._aspect_ratio
        encoder.flags |= Flags.frame_duration  # without it PyAV's durations do not reach the muxer
        encoder.thread_type = "FRAME"  # PyAV's own choice, slices, costs quality
        self._colour = written_tags(frame.colour, frame.height, self._pixel_format)
        set_tags(encoder, self._colour)
        if self._others:
            self._others.start(self._container, self._stream)

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


def muxer_options(muxer: str, time_base: Fraction, others: StreamCopy | None) -> dict[str, str]:
    """FFmpeg's options for a file. MP4 notes where each track starts in units of the movie; FFmpeg's 1/1000 s would
    round that."""
    if muxer == "matroska":
        return {}
    exact = math.lcm(time_base.denominator, *(others.sample_rates if others else ()))
    return {
        "movflags": "+faststart",
        "movie_timescale": str(exact if exact < _INT32_MAX else time_base.denominator),
    }


_INT32_MAX = 2**31 - 1

_DEFAULT_RATE = Fraction(25)
"""Frames per second told to x264 where nothing is known; it only guides rate control, times are the frames' own."""
