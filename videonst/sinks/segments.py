"""A video file written in segments that survive an interruption."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from av.packet import Packet
from av.video.stream import VideoStream

from videonst.engines import Stateful
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.sinks.part_file import PartFile, sync
from videonst.sinks.parts import Parts, segment_index
from videonst.sinks.streams import StreamCopy, open_streams
from videonst.sinks.video import MUXERS, VideoFileSink, muxer_options
from videonst.sources import SourceInfo
from videonst.sources.video import open_container

_log = logging.getLogger(__name__)


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
        resume: bool = False,
        overwrite: bool = False,
        **encoding: Any,
    ) -> None:
        if source.path is None:
            raise InputError("what can be read only once cannot be resumed; name a file as the input")
        self._muxer = MUXERS[path.suffix.lower()]
        self._encoding = encoding
        self._source = source
        self._part = PartFile(path, source.path, overwrite=overwrite)
        self._others: StreamCopy | None = None
        self._segment: _Segment | None = None
        self._index: int | None = None
        self._states: dict[int, Mapping[str, Any]] = {}
        self._seen: int | None = None
        try:
            VideoFileSink.check(**encoding)
            self._others = open_streams(source, path, MUXERS, encoding.get("drop", ()))
            self._parts = Parts(path, source.path, settings, resume=resume, overwrite=overwrite)
        except BaseException:
            self._close()
            raise
        self._done = list(_finished(self._parts)) if self._parts.is_resumed else []

    def restore(self, engine: object) -> int:
        if self._done and isinstance(engine, Stateful):
            engine.restore(self._parts.load_state(_STATE.format(len(self._done))))
        return self._done_frames()

    def remember(self, frame: Frame, engine: object) -> None:
        index = segment_index(frame)
        if index != self._seen and self._seen is not None and isinstance(engine, Stateful):
            self._states[index] = engine.state()
        self._seen = index

    def write(self, frame: Frame) -> None:
        index = segment_index(frame)
        if self._segment is not None and index != self._index:
            self._finish_segment(self._states.pop(index, None))
        if self._segment is None:
            source = replace(self._source, path=None)
            self._segment = _Segment(
                self._parts.folder / _VIDEO.format(len(self._done)), source, overwrite=True, **self._encoding
            )
            self._segment.__enter__()
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
                    self._finish_segment(None)
                self._join()
                self._part.commit()
                self._parts.remove()
            elif self._segment is not None:
                self._segment.__exit__(kind, error, trace)
        finally:
            self._close()
            if (self._parts.folder / _TIMES.format(0)).exists():
                self._parts.release()
                _log.warning(
                    "%s is not complete; what was finished (%d frames) is kept: go on with --resume (resume=True)",
                    self._part.target,
                    self._done_frames(),
                )
            else:
                self._parts.remove()

    def _finish_segment(self, state: Mapping[str, Any] | None) -> None:
        """The times are written last: a segment that has them is complete."""
        segment, self._segment = self._segment, None
        assert segment is not None
        segment.__exit__(None, None, None)
        number = len(self._done)
        done = _Finished(self._parts.folder / _VIDEO.format(number), segment.time_base, segment.times)
        with self._parts.writing():
            sync(done.path)
        if state is not None:
            self._parts.save_state(_STATE.format(number + 1), state)
            (self._parts.folder / _STATE.format(number)).unlink(missing_ok=True)
        times = {"time_base": str(done.time_base), "times": done.times}
        self._parts.write(_TIMES.format(number), json.dumps(times).encode())
        self._done.append(done)

    def _join(self) -> None:
        """Copies the packets of all segments and the other streams into the target's part file."""
        if not self._done:
            raise VideoNSTError(f"no frames came, so {self._part.target} was not written")
        time_base = self._done[0].time_base
        times = [(pts, duration) for segment in self._done for pts, duration in segment.times]
        decoding_times = _decoding_times([pts for pts, _ in times])
        options = muxer_options(self._muxer, time_base, self._others)
        try:
            with (
                self._part.writing(),
                av.open(self._part.url, "w", format=self._muxer, options=options) as output,
                open_container(self._done[0].path) as first,
            ):
                stream = output.add_stream_from_template(first.streams.video[0])
                stream.time_base = time_base
                if self._others:
                    self._others.start(output, stream)
                packets = chain.from_iterable(_packets(segment) for segment in self._done)
                for packet, (pts, duration), dts in zip(packets, times, decoding_times, strict=True):
                    packet.stream = stream
                    packet.pts, packet.dts, packet.duration, packet.time_base = pts, dts, duration, time_base
                    if self._others:
                        self._others.copy_until(dts * time_base)
                    output.mux_one(packet)
                if self._others:
                    self._others.copy_until(None)
            with self._part.writing():
                sync(self._part.path)
        except av.FFmpegError as error:
            raise VideoNSTError(f"cannot write {self._part.target}: {error.strerror}") from error

    def _done_frames(self) -> int:
        return sum(len(segment.times) for segment in self._done)

    def _close(self) -> None:
        if self._others:
            self._others.close()
        self._part.discard()


class _Segment(VideoFileSink):
    """Remembers the exact times of its packets, in the order of the file; Matroska rounds them.

    Attributes:
        times: (presentation timestamp, duration) in units of `time_base`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.times: list[tuple[int, int]] = []
        self.time_base = Fraction(1)

    def _mux(self, packets: list["Packet[VideoStream]"]) -> None:
        for packet in packets:
            self.time_base = Fraction(packet.time_base)
            self.times.append((packet.pts or 0, packet.duration or 0))
        super()._mux(packets)


@dataclass(frozen=True)
class _Finished:
    """A complete segment: its file and, for each packet, presentation timestamp and duration."""

    path: Path
    time_base: Fraction
    times: list[tuple[int, int]]


def _finished(parts: Parts) -> Iterator[_Finished]:
    """The complete segments of an earlier run, up to the first that is not."""
    number = 0
    while (times := parts.folder / _TIMES.format(number)).exists():
        stored = json.loads(times.read_text())
        video = parts.folder / _VIDEO.format(number)
        yield _Finished(video, Fraction(stored["time_base"]), [(pts, duration) for pts, duration in stored["times"]])
        number += 1


def _packets(segment: _Finished) -> Iterator["Packet[VideoStream]"]:
    with open_container(segment.path) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                yield packet


def _decoding_times(presentation_times: list[int]) -> list[int]:
    """For packets in decoding order: the presentation times in ascending order, late by as many frames as reordering
    needs, so that no frame is decoded after it is shown. As x264 does within a segment, here for all at once."""
    ascending = sorted(presentation_times)
    place = {pts: index for index, pts in enumerate(ascending)}
    delay = max(index - place[pts] for index, pts in enumerate(presentation_times))
    head = ascending[min(delay, len(ascending) - 1)] - ascending[0]
    return [pts - head for pts in ascending[:delay]] + ascending[: len(ascending) - delay]


_VIDEO = "{:05}.mkv"
_TIMES = "{:05}.json"
_STATE = "{:05}.npz"
