"""A video file as a source of frames."""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from videonst.av_frame import HDR_TRANSFERS, FrameConverter, Orientation, is_hdr
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.sources.damage import Damage
from videonst.sources.deinterlace import deinterlaced
from videonst.sources.source import SourceInfo
from videonst.trim import WHOLE, Trim

if TYPE_CHECKING:
    from videonst.sources.hardware import Hardware

_log = logging.getLogger(__name__)


class VideoFileSource:
    """A video file: the frames of its largest video stream, upright, at the times at which the file shows them.

    The duration of a frame runs to the next one, that of the last to the end of the stream; the decoder's durations
    count in decoding order. Of a damaged file what decodes is delivered, and a warning counts the rest.

    Of a part, the first frame is the first one shown at or after its start, and it is delivered as time 0.

    With `hardware` the pictures are decoded there; see `videonst.sources.hardware`.

    Raises:
        InputError: not a video, no picture in it, none that decodes, none in the part to take, or HDR where `hdr` is
            "error".
        VideoNSTError: while iterating: the file could not be read on, or the hardware failed.
    """

    _seekable = True
    """Whether the file can be opened again, and sought in."""

    def __init__(
        self,
        path: Path | str,
        trim: Trim = WHOLE,
        damage: Damage | None = None,
        *,
        hdr: str = "tonemap",
        hardware: "Hardware | None" = None,
    ) -> None:
        self._path = path
        self._hardware = hardware
        self._damage = damage or Damage()
        self._hdr = hdr
        self._open()
        try:
            self._time_base = _fraction(self._stream.time_base) or Fraction(1, 1000)
            self._converter = FrameConverter(centred_chroma=self._stream.codec_context.name == "mjpeg")
            self._orientation = Orientation()
            self._lost = self._incomplete = 0
            self._last_pts: int | None = None
            self._next_pts: int | None = None
            self._origin = _origin(self._container)
            self._start, self._end = (
                None if time is None else math.ceil((self._origin + time) / self._time_base)
                for time in (trim.start, trim.end)
            )
            decoded = self._decoded()
            first = next(decoded, None)
            if first is None:
                raise InputError(self._nothing_to_show(trim))
            self._offset = first.pts if self._start is not None else 0
            self.info = self._info(first, trim)
            self._frames = self._timed(chain((first,), decoded))
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> None:
        self._container = self._open_container()
        try:
            self._decode_from(shown_stream(self._container, self._path))
        except BaseException:
            self._container.close()
            raise

    def _open_container(self) -> InputContainer:
        return open_container(self._path, self._hardware.accelerator if self._hardware else None)

    def _decode_from(self, stream: VideoStream) -> None:
        self._stream = stream
        # Each thread that takes a frame takes a surface of the hardware's too, of which it has 32.
        self._stream.thread_type = "SLICE" if self._hardware else "AUTO"
        self._decoder = alpha_decoder(stream) or stream.codec_context

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
                yield self._shifted(pending, frame.pts - pending.pts)
            pending = frame
        if pending is not None:
            yield self._last(pending, delivered + 1)

    def _shifted(self, frame: Frame, duration: int) -> Frame:
        """At its time in the part, and not lasting beyond it."""
        if self._end is not None:
            duration = min(duration, self._end - frame.pts)
        return replace(frame, pts=frame.pts - self._offset, duration=duration)

    def _decoded(self) -> Iterator[Frame]:
        """The frames of the part in presentation order, with the durations that the decoder gives."""
        expected_pts = 0
        for picture in deinterlaced(self._pictures_from_start(), self._time_base, self._report_interlaced):
            if self._last_pts is None:
                self._first_pts = picture.pts or 0
                self._look_at_first(picture)
            pts = expected_pts if picture.pts is None else picture.pts
            if self._last_pts is not None and pts <= self._last_pts:  # two pictures cannot share one moment
                self._lost += 1
                continue
            if self._end is not None and pts >= self._end:
                self._next_pts = pts
                return
            self._last_pts, expected_pts = pts, pts + (picture.duration or self._nominal_duration())
            if self._start is None or pts >= self._start:
                yield self._converter.from_av(picture, pts=pts, time_base=self._time_base)

    def _look_at_first(self, picture: VideoFrame) -> None:
        self._pixel_format = self._hardware.pixel_format if self._hardware else picture.format.name
        self._orientation = Orientation.of(picture)
        if self._orientation.oblique:
            _log.warning("%s is to be shown tilted; only quarter turns are applied", self._path)
        if is_hdr(picture):
            standard = HDR_TRANSFERS[picture.color_trc]
            if self._hdr == "error":
                raise InputError(f"{self._path} is HDR ({standard}); allow it to be mapped to SDR with --hdr tonemap")
            _log.warning("%s is HDR (%s); its colours are mapped to SDR (BT.709)", self._path, standard)

    def _report_interlaced(self) -> None:
        _log.warning("%s is interlaced; it is deinterlaced", self._path)

    def _pictures_from_start(self) -> Iterator[VideoFrame]:
        """Seeks, where that is exact: where the first picture is a key frame, and not after the start."""
        if not self._seekable:
            yield from self._pictures()
            return
        for margin in _SEEK_MARGINS if self._container.format.name in _TIMED_FORMATS else ():
            seek_to = (self._start or 0) - math.ceil(margin / self._time_base)
            if self._start is None or seek_to <= (self._stream.start_time or 0):
                break
            try:
                self._container.seek(seek_to, stream=self._stream)
            except av.FFmpegError:
                break
            pictures = self._pictures()
            first = next(pictures, None)
            if first is not None and first.key_frame and first.pts is not None and first.pts <= self._start:
                self._lost = self._incomplete = 0  # what precedes a key frame need not decode
                yield first
                yield from pictures
                return
        if self._start is not None:
            self._container.close()
            self._open()
            self._lost = self._incomplete = 0
        yield from self._pictures()

    def _pictures(self) -> Iterator[VideoFrame]:
        packets = self._demux()
        if self._decoder.is_open:  # after a seek
            self._decoder.flush_buffers()
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
                for picture in self._decoder.decode(packet):
                    self._incomplete += packet.is_corrupt or picture.is_corrupt
                    yield picture
            except av.FFmpegError as error:
                if self._hardware and not isinstance(error, av.error.InvalidDataError):  # not the file's fault
                    raise VideoNSTError(
                        f"hardware failed to decode {self._path}: {error.strerror}; try without --hwaccel (hwaccel=)"
                    ) from error
                self._lost += 1

    def _demux(self) -> Iterator["Packet[VideoStream]"]:
        return self._container.demux(self._stream)

    def _nominal_duration(self) -> int:
        rate = _fraction(self._stream.average_rate) or _DEFAULT_RATE
        return max(1, round(1 / (rate * self._time_base)))

    def _last(self, frame: Frame, delivered: int) -> Frame:
        """The last frame, lasting to the next one in the file or else to the end; reports what was lost."""
        duration = self._last_duration(frame, delivered)
        if self._lost or self._incomplete:
            incomplete = f", {self._incomplete} were incomplete" if self._incomplete else ""
            self._damage.report(
                f"{self._path} is damaged: {delivered} frames delivered, {self._lost} could not be decoded{incomplete}",
                self._lost + self._incomplete,
            )
        return self._shifted(frame, duration)

    def _last_duration(self, frame: Frame, delivered: int) -> int:
        """As the file states its end, unless frames are missing before it, which are counted."""
        if self._next_pts is not None:
            return self._next_pts - frame.pts
        if not self._stream.duration:
            if self._end is None:
                self._count_cut_off(frame)
            return frame.duration
        end = (self._stream.start_time or 0) + self._stream.duration
        remaining = max(frame.duration, end - frame.pts)  # with B-frames either can be short, neither is ever long
        usual = max(self._nominal_duration(), (frame.pts - self._first_pts) // max(1, delivered - 1))
        is_cut_short = remaining > frame.duration + usual
        if self._start is not None:  # frames before it were not counted
            return frame.duration if is_cut_short else remaining
        if self._container.format.name in _TIMED_FORMATS:
            missing = max(0, self._stream.frames - delivered)
        else:  # AVI fills the time between frames with empty ones, and counts them
            missing = remaining // usual - 1 if is_cut_short else 0
        if missing and is_cut_short:
            self._lost = max(self._lost, missing)
        return frame.duration if missing else remaining

    def _count_cut_off(self, last: Frame) -> None:
        """Matroska says in a tag when each stream ends, in hours, minutes and seconds from the file's beginning."""
        stated = _CLOCK.fullmatch(self._stream.metadata.get("DURATION", ""))
        if stated is not None:
            hours, minutes, seconds = map(Fraction, stated.groups())
            missing = hours * 3600 + minutes * 60 + seconds - (last.pts + last.duration) * self._time_base
            self._lost = max(self._lost, round(missing / (self._nominal_duration() * self._time_base)))

    def _nothing_to_show(self, trim: Trim) -> str:
        if self._next_pts is not None:
            first, last = (float(time or 0) for time in (trim.start, trim.end))
            return f"no frame of {self._path} begins between {first:g} s and {last:g} s; choose a later end"
        if self._last_pts is not None and trim.start is not None:
            last = float(self._last_pts * self._time_base - self._origin)
            return (
                f"{self._path} has its last frame at {last:.3f} s, before the start at {float(trim.start):g} s; "
                "choose an earlier start"
            )
        return f"{self._path} holds no video frame that can be decoded; check that the file is complete"

    def _info(self, first: Frame, trim: Trim) -> SourceInfo:
        stream, container = self._stream, self._container
        duration: Fraction | None = None
        if stream.duration:
            duration = stream.duration * self._time_base
        elif container.duration:
            duration = Fraction(container.duration, av.time_base)
        frame_count, rate = stream.frames or None, _fraction(stream.average_rate)
        if duration is not None and trim != WHOLE:
            length, skipped = duration, trim.start or Fraction(0)
            duration = max(Fraction(0), min(length, trim.end or length) - skipped)
            frame_count = round(duration * rate) if rate else None
        part = Trim(
            start=None if trim.start is None else first.time,
            end=None if trim.end is None else self._origin + trim.end,
        )
        aspect_ratio = _fraction(stream.sample_aspect_ratio) or Fraction(1)
        return SourceInfo(
            Path(self._path),
            first.width,
            first.height,
            frame_count=frame_count,
            duration=None if duration is None else float(duration),
            average_rate=rate,
            sample_aspect_ratio=1 / aspect_ratio if self._orientation.swapped else aspect_ratio,
            pixel_format=self._pixel_format,
            is_transparent=first.is_transparent,
            part=part,
            damage=self._damage,
        )


def shown_stream(container: InputContainer, path: Path | str) -> VideoStream:
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
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise InputError(f"{path} holds video in a format that FFmpeg cannot decode; convert it to another first")
    return max(decodable, key=lambda stream: stream.width * stream.height)


def open_container(path: Path | str, accelerator: HWAccel | None = None) -> InputContainer:
    """The opened file, its decoders on the device of `accelerator` where they can be. Metadata that is no UTF-8 is read
    with replacement characters.

    Raises:
        InputError: it cannot be read, or is no video file.
    """
    try:
        # "file:" keeps a colon in the name from being read as a protocol
        return av.open(f"file:{path}", metadata_errors="replace", hwaccel=accelerator)
    except av.error.InvalidDataError as error:
        raise InputError(f"{path} is not a video file; expected MP4, MOV, MKV or another that FFmpeg reads") from error
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"cannot open {path}: {error.strerror}") from error


def alpha_decoder(stream: VideoStream) -> VideoCodecContext | None:
    """In WebM alpha is a second picture beside each packet, which only libvpx's own decoders see."""
    has_alpha = any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
    name = _ALPHA_DECODERS.get(stream.codec_context.name)
    if not has_alpha or name is None:
        return None
    decoder = cast(VideoCodecContext, VideoCodecContext.create(name, "r"))
    decoder.thread_type = "AUTO"
    return decoder


_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

_CLOCK = re.compile(r"(\d+):(\d+):(\d+\.\d+)")

_DEFAULT_RATE = Fraction(25)
"""Frames per second where a file states neither rate nor times, FFmpeg's own default."""

_TIMED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts")
"""Formats that store the presentation time of every frame. For others, such as AVI, FFmpeg makes up times, and others
after a seek."""

_SEEK_MARGINS = (0, 2, 10)
"""Seconds before the start to seek to, one after the other. Indices know decoding times, so the key frame found may be
shown after the start, by as much as frames are reordered; without an index any picture may be found."""

_TEXT_FORMAT = "tty"
"""FFmpeg shows any .txt file as a terminal session."""


def _origin(container: InputContainer) -> Fraction:
    """Where sound or picture starts, seconds on the file's clock; not before 0, where encoders put what none hears."""
    streams = (*container.streams.video, *container.streams.audio)
    starts = [s.start_time * Fraction(s.time_base or 0) for s in streams if s.start_time is not None]
    return max(Fraction(0), min(starts, default=Fraction(0)))


def _fraction(rational: Fraction | None) -> Fraction | None:
    """FFmpeg's rational as a Fraction, None where unset (PyAV 19 has a type of its own, whose unset value is falsy)."""
    return Fraction(rational.numerator, rational.denominator) if rational else None
