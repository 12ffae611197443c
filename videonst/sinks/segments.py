"""A video file written in segments that survive an interruption."""

import contextlib
import gc
import io
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import av
from av.packet import Packet
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from videonst.av_frame import has_alpha
from videonst.engines import Stateful
from videonst.errors import InputError, VideoNSTError
from videonst.frame import ColourTags, Frame
from videonst.sinks.codecs import DEFAULT_CODECS
from videonst.sinks.encoder import Encoder
from videonst.sinks.frame_encoder import FrameEncoder, VideoKind
from videonst.sinks.part_file import PartFile
from videonst.sinks.parts import PaintedFrames, Parts, segment_index
from videonst.sinks.streams import StreamCopy, open_streams
from videonst.sinks.video import MUXERS, checked_encoder, muxer_options
from videonst.sources import SourceInfo

_log = logging.getLogger(__name__)


def can_be_segmented(source: SourceInfo, muxer: str, codec: str | None) -> bool:
    """Whether a packet is all that an encoder gives for a frame. Of VP9's transparency and GIF's colours it is not."""
    if muxer == "gif":
        return False
    is_transparent = source.pixel_format is not None and has_alpha(VideoFormat(source.pixel_format))
    return not (is_transparent and (codec or DEFAULT_CODECS.get(muxer)) == "vp9")


class SegmentedVideoSink:
    """Encodes as `VideoFileSink` does, in segments with an encoder each, and joins them at the end without encoding
    again; then the other streams are copied. Segments end where a multiple of `SEGMENT_SECONDS` begins, in a resumed
    run as in one that was never interrupted, so that both give the same pictures.

    Raises:
        InputError: as `VideoFileSink` and `Parts`.
        VideoNSTError: while writing or closing, as `VideoFileSink`; what was finished is kept.
    """

    def __init__(
        self,
        path: Path,
        source: SourceInfo,
        *,
        settings: Mapping[str, Any],
        drop: Collection[str] = (),
        codec: str | None = None,
        crf: float | None = None,
        preset: str | None = None,
        options: Mapping[str, str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        if source.path is None:
            raise InputError("what can be read only once cannot be resumed; name a file as the input")
        self._muxer = MUXERS[path.suffix.lower()]
        self._drop = drop
        self._encoder = checked_encoder(
            source, self._muxer, drop=drop, codec=codec, crf=crf, preset=preset, options=options
        )
        self._source = source
        self._part = PartFile(path, source.path, overwrite=overwrite)
        self._others: StreamCopy | None = None
        self._segment: _Segment | None = None
        self._index: int | None = None
        self._states: dict[int, Mapping[str, Any]] = {}
        self._seen: int | None = None
        try:
            self._others = open_streams(source, path, MUXERS, drop)
            self._parts = Parts(path, source.path, settings, resume=resume, overwrite=overwrite)
        except BaseException:
            self._close()
            raise
        self._painted = PaintedFrames(self._parts)
        self._done = list(_finished(self._parts)) if self._parts.is_resumed else []
        self._kind = self._done[0].kind if self._done else None

    def restore(self, engine: object) -> int:
        if self._done and isinstance(engine, Stateful):
            state = self._parts.load_state(_STATE.format(len(self._done)))
            if state:  # empty where the last frame is painted, and only the joining is left
                engine.restore(state)
        return self._done_frames()

    def remember(self, frame: Frame, engine: object) -> None:
        index = segment_index(frame)
        if index != self._seen and self._seen is not None and isinstance(engine, Stateful):
            self._states[index] = engine.state()
        self._seen = index

    def begins_part(self, frame: Frame) -> bool:
        return self._seen is not None and segment_index(frame) != self._seen

    def store(self) -> PaintedFrames:
        return self._painted

    def write(self, frame: Frame) -> None:
        index = segment_index(frame)
        if self._segment is not None and index != self._index:
            self._finish_segment(self._states.pop(index, None))
            self._painted.drop_before(frame)
        with self._parts.writing(), _encoding(self._part.target):
            if self._segment is None:
                self._kind = self._kind or VideoKind.of(frame)
                self._segment = _Segment(
                    self._parts, len(self._done), self._muxer, self._encoder, self._source, self._kind, self._drop
                )
                self._index = index
            self._segment.write(frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                if self._segment is not None:
                    self._finish_segment({})
                self._join()
                self._part.commit()
                self._parts.remove()
            elif self._segment is not None:
                self._segment.discard()
        finally:
            self._close()
            painted = self._painted.count()
            if painted or (self._parts.folder / _PACKETS.format(0)).exists():
                self._parts.release()
                _log.warning(
                    "%s is not complete; what was finished (%d frames) is kept: go on with --resume (resume=True)",
                    self._part.target,
                    self._done_frames() + painted,
                )
            else:
                self._parts.remove()

    def _finish_segment(self, state: Mapping[str, Any] | None) -> None:
        """The list of packets is written last: a segment that has it is complete."""
        segment, self._segment = self._segment, None
        assert segment is not None
        with self._parts.writing(), _encoding(self._part.target):
            done = segment.finish()
        if state is not None:
            self._parts.save_state(_STATE.format(len(self._done) + 1), state)
        self._parts.write(_PACKETS.format(len(self._done)), done.to_json())
        (self._parts.folder / _STATE.format(len(self._done))).unlink(missing_ok=True)
        self._done.append(done)
        # PyAV's objects refer to each other in circles, and an encoder holds some 90 MB at 1280x720 that Python does
        # not see when it decides whether to collect.
        del segment
        gc.collect()

    def _join(self) -> None:
        """Writes the packets of all segments and the other streams into the target's part file. The stream is that of
        an encoder with the same settings, so that the file describes its pictures as one in one piece would."""
        if not self._done or self._kind is None:
            raise VideoNSTError(f"no frames came, so {self._part.target} was not written")
        time_base = self._kind.time_base
        decoding_times = _decoding_times([packet.pts for segment in self._done for packet in segment.packets])
        options = muxer_options(self._muxer, time_base, self._others)
        with (
            self._part.writing(),
            _encoding(self._part.target),
            av.open(self._part.url, "w", format=self._muxer, options=options) as output,
        ):
            stream = FrameEncoder(output, self._encoder, self._source, self._kind, self._part.target).stream
            if self._others:
                self._others.start(output, stream)
            packets = chain.from_iterable(segment.read(time_base) for segment in self._done)
            for packet, dts in zip(packets, decoding_times, strict=True):
                packet.stream = stream
                packet.dts = dts
                if self._others:
                    self._others.copy_until(dts * time_base)
                output.mux_one(packet)
            if self._others:
                self._others.copy_until(None)

    def _done_frames(self) -> int:
        return sum(len(segment.packets) for segment in self._done)

    def _close(self) -> None:
        if self._others:
            self._others.close()
        self._part.discard()


class _Segment:
    """One segment while it is encoded: the packets one after the other in a file, what they are in memory."""

    def __init__(
        self,
        parts: Parts,
        number: int,
        muxer: str,
        encoder: Encoder,
        source: SourceInfo,
        kind: VideoKind,
        drop: Collection[str],
    ) -> None:
        # Never written to: it tells the encoder what this kind of file needs.
        self._container = av.open(io.BytesIO(), "w", format=muxer)
        self._frames = FrameEncoder(self._container, encoder, source, kind, parts.target, drop)
        self._done = _Finished(parts.folder / _VIDEO.format(number), kind, [])
        self._file = self._done.path.open("wb")

    def write(self, frame: Frame) -> None:
        self._keep(self._frames.encode(frame))

    def finish(self) -> "_Finished":
        self._keep(self._frames.flush())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        return self._done

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk has been told of
            self._file.close()

    def discard(self) -> None:
        self.close()
        self._done.path.unlink(missing_ok=True)

    def _keep(self, packets: list["Packet[VideoStream]"]) -> None:
        for packet in packets:
            self._file.write(bytes(packet))
            self._done.packets.append(
                _Packet(cast(int, packet.pts), packet.duration or 0, packet.is_keyframe, packet.size)
            )


@dataclass(frozen=True, slots=True)
class _Packet:
    """Times in units of the time base, sizes in bytes. One for every frame stays in memory until the end."""

    pts: int
    duration: int
    is_keyframe: bool
    size: int


@dataclass(frozen=True)
class _Finished:
    """A complete segment: the file with its packets, and what they are, in decoding order."""

    path: Path
    kind: VideoKind
    packets: list[_Packet]

    def to_json(self) -> bytes:
        kind = {**asdict(self.kind), "time_base": str(self.kind.time_base)}
        return json.dumps({"kind": kind, "packets": [list(astuple(packet)) for packet in self.packets]}).encode()

    @classmethod
    def from_json(cls, path: Path, content: str) -> "_Finished":
        stored = json.loads(content)
        kind = stored["kind"]
        kind = {**kind, "time_base": Fraction(kind["time_base"]), "colour": ColourTags(**kind["colour"])}
        return cls(path, VideoKind(**kind), [_Packet(*packet) for packet in stored["packets"]])

    def read(self, time_base: Fraction) -> Iterator["Packet[VideoStream]"]:
        with self.path.open("rb") as file:
            for known in self.packets:
                packet = cast("Packet[VideoStream]", Packet(file.read(known.size)))
                packet.pts, packet.duration, packet.time_base = known.pts, known.duration, time_base
                packet.is_keyframe = known.is_keyframe
                yield packet


@contextlib.contextmanager
def _encoding(target: Path) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise VideoNSTError(f"cannot encode {target}: {error.strerror}; check that the input plays") from error


def _finished(parts: Parts) -> Iterator[_Finished]:
    """The complete segments of an earlier run, up to the first that is not."""
    number = 0
    while (packets := parts.folder / _PACKETS.format(number)).exists():
        yield _Finished.from_json(parts.folder / _VIDEO.format(number), packets.read_text())
        number += 1


def _decoding_times(presentation_times: list[int]) -> list[int]:
    """For packets in decoding order: the presentation times in ascending order, late by as many frames as reordering
    needs, so that no frame is decoded after it is shown. As x264 does within a segment, here for all at once."""
    ascending = sorted(presentation_times)
    place = {pts: index for index, pts in enumerate(ascending)}
    delay = max(index - place[pts] for index, pts in enumerate(presentation_times))
    head = ascending[min(delay, len(ascending) - 1)] - ascending[0]
    return [pts - head for pts in ascending[:delay]] + ascending[: len(ascending) - delay]


_VIDEO = "{:05}.packets"
_PACKETS = "{:05}.json"
_STATE = "{:05}.npz"
