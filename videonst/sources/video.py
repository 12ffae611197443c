"""A video file as a source of frames."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from videonst.av_frame import FrameConverter, Orientation
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.sources.source import SourceInfo

_log = logging.getLogger(__name__)


class VideoFileSource:
    """A video file: the frames of its largest video stream, upright, at the times at which the file shows them.

    The duration of a frame runs to the next one, that of the last to the end of the stream; the decoder's durations
    count in decoding order. Of a damaged file what decodes is delivered, and a warning counts the rest.

    Raises:
        InputError: not a video, no picture in it, or none that decodes.
        VideoNSTError: while iterating: the file could not be read on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container = _open(path)
        try:
            self._stream = shown_stream(self._container, path)
            self._stream.thread_type = "AUTO"
            self._time_base = _fraction(self._stream.time_base) or Fraction(1, 1000)
            self._converter = FrameConverter()
            self._lost = 0
            decoded = self._decoded()
            self._orientation = Orientation()
            first = next(decoded, None)
            if first is None:
                raise InputError(f"{path} holds no video frame that can be decoded; check that the file is complete")
            self.info = _info(path, self._container, self._stream, first, self._orientation)
            self._frames = self._timed(chain((first,), decoded))
        except BaseException:
            self._container.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def _timed(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Every frame lasts until the next; what was lost on the way is reported at the end."""
        delivered = 0
        pending: Frame | None = None
        for frame in frames:
            if pending is not None:
                delivered += 1
                yield replace(pending, duration=frame.pts - pending.pts)
            pending = frame
        if pending is not None:
            yield self._last(pending, delivered + 1)

    def _decoded(self) -> Iterator[Frame]:
        """The frames in presentation order, with the durations that the decoder gives."""
        last_pts: int | None = None
        next_pts = 0
        for picture in self._pictures():
            if last_pts is None:
                self._orientation = Orientation.of(picture)
                if self._orientation.oblique:
                    _log.warning("%s is to be shown tilted; only quarter turns are applied", self._path)
            pts = next_pts if picture.pts is None else picture.pts
            if last_pts is not None and pts <= last_pts:  # two pictures cannot share one moment
                self._lost += 1
                continue
            last_pts, next_pts = pts, pts + (picture.duration or self._nominal_duration())
            yield self._converter.from_av(picture, pts=pts, time_base=self._time_base)

    def _pictures(self) -> Iterator[VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.InvalidDataError:
                packet = None
                self._lost += 1
            except av.FFmpegError as error:
                raise VideoNSTError(f"cannot read on in {self._path}: {error.strerror}") from error
            if packet is None:
                return
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self._lost += 1

    def _nominal_duration(self) -> int:
        rate = _fraction(self._stream.average_rate) or _DEFAULT_RATE
        return max(1, round(1 / (rate * self._time_base)))

    def _last(self, frame: Frame, delivered: int) -> Frame:
        """The last frame, lasting to the end that the file states; warns of those that should have followed."""
        missing = max(0, (self.info.frame_count or 0) - delivered)
        remaining = frame.duration
        if self._stream.duration:
            end = (self._stream.start_time or 0) + self._stream.duration
            remaining = max(remaining, end - frame.pts)  # with B-frames either can be short, neither is ever long
        if missing and remaining > frame.duration + self._nominal_duration():
            self._lost = max(self._lost, missing)
        elif not missing:
            frame = replace(frame, duration=remaining)
        if self._lost:
            _log.warning(
                "%s is damaged: %d frames delivered, %d could not be decoded", self._path, delivered, self._lost
            )
        return frame


def shown_stream(container: InputContainer, path: Path) -> VideoStream:
    """The largest video stream, as ffmpeg chooses; cover art is none.

    Raises:
        InputError: there is none in `path`, which `container` has open.
    """
    if container.format.name == _TEXT_FORMAT:
        raise InputError(f"{path} is a text file; expected a video or picture file")
    streams = [s for s in container.streams.video if not Disposition(s.disposition) & Disposition.attached_pic]
    if not streams:
        what = "only sound" if container.streams.audio else "no video"
        raise InputError(f"{path} holds {what}; expected a file with a video stream")
    return max(streams, key=lambda stream: stream.width * stream.height)


def _open(path: Path) -> InputContainer:
    try:
        return av.open(f"file:{path}")  # "file:" keeps a colon in the name from being read as a protocol
    except av.error.InvalidDataError as error:
        raise InputError(f"{path} is not a video file; expected MP4, MOV, MKV or another that FFmpeg reads") from error
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"cannot open {path}: {error.strerror}") from error


_DEFAULT_RATE = Fraction(25)
"""Frames per second where a file states neither rate nor times, FFmpeg's own default."""

_TEXT_FORMAT = "tty"
"""FFmpeg shows any .txt file as a terminal session."""


def _info(
    path: Path, container: InputContainer, stream: VideoStream, first: Frame, orientation: Orientation
) -> SourceInfo:
    duration: float | None = None
    if stream.duration and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    elif container.duration:
        duration = container.duration / av.time_base
    aspect_ratio = _fraction(stream.sample_aspect_ratio) or Fraction(1)
    return SourceInfo(
        path,
        first.width,
        first.height,
        frame_count=stream.frames or None,
        duration=duration,
        average_rate=_fraction(stream.average_rate),
        sample_aspect_ratio=1 / aspect_ratio if orientation.swapped else aspect_ratio,
    )


def _fraction(rational: Fraction | None) -> Fraction | None:
    """FFmpeg's rational as a Fraction, None where unset (PyAV 19 has a type of its own, whose unset value is falsy)."""
    return Fraction(rational.numerator, rational.denominator) if rational else None
