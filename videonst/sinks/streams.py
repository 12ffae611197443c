"""What a file holds besides its pictures, copied into the output; sound that does not fit is encoded anew."""

import contextlib
import io
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Discard, Disposition, Stream
from av.video.stream import VideoStream

from videonst.errors import InputError
from videonst.sinks.audio import ENCODERS, AudioTranscoder, written_rate
from videonst.sources import Damage, SourceInfo
from videonst.sources.video import open_container, shown_stream
from videonst.trim import Trim

if TYPE_CHECKING:
    from av.container.core import Chapter

_log = logging.getLogger(__name__)

KINDS = ("audio", "subtitles", "data", "attachments", "alpha")
"""What can be left out by name. Cover art counts as an attachment; alpha is part of the pictures."""


class StreamCopy:
    """Copies streams packet by packet, in step with the video, and chapters and metadata. Sound that `muxer` cannot
    hold is encoded anew. Made by `open_streams`.

    Of a part, the packets that sound or show in it are copied, texts and chapters cut at its ends. Sound cannot be cut
    within a packet, so it begins up to one packet before time 0, and ends up to one packet late.

    Attributes:
        sample_rates: samples per second of each audio stream as it is written.
    """

    def __init__(
        self,
        container: InputContainer,
        shown: VideoStream,
        streams: list[Stream],
        part: Trim,
        damage: Damage,
        muxer: str,
        passing: Iterator["Packet[Stream]"] | None = None,
    ) -> None:
        self._container = container
        self._damage = damage
        self._passing = passing
        self._shown = shown
        self._streams = streams
        self._transcoded = {s.index for s in streams if not _holds(muxer, s)}
        self._transcoders: dict[int, AudioTranscoder] = {}
        self._refused = 0
        self._part = part
        self._start, self._end = part.start, part.end
        self.sample_rates = [
            written_rate(muxer, s) if s.index in self._transcoded else s.codec_context.sample_rate
            for s in streams
            if isinstance(s, AudioStream)
        ]
        for stream in container.streams if passing is None else ():
            if stream not in streams:
                stream.discard = Discard.all  # spares reading it

    def start(self, output: OutputContainer, video: VideoStream) -> None:
        """Adds everything to the output, in which `video` is there already; before the first packet is written."""
        tags = _kept(self._shown.metadata, output)
        video.metadata.update({key: value for key, value in tags.items() if key.lower() in _REPAINTED_TAGS})
        if self._start:
            video.metadata.pop("timecode", None)  # true of the first frame only
        video.disposition = self._shown.disposition
        output.metadata.update(_kept(self._container.metadata, output))
        output.set_chapters(self._chapters())
        self._output = output
        packed = [s for s in self._streams if _is_cover(s) and output.format.name == "matroska"]
        self._streams = [stream for stream in self._streams if stream not in packed]
        for stream, picture in zip(packed, _cover_art(self._container, packed), strict=True):
            output.add_attachment(*_file_name_and_type(stream), picture)
        self._copies = {stream.index: self._add(stream) for stream in self._streams}
        if self._passing is None:
            self._seek()
            self._packets = self._demux()
        else:
            self._packets = self._passing
        self._pending = self._next()

    def copy_until(self, time: Fraction | None) -> None:
        """Copies what is decoded up to `time` (seconds), everything that is left where None."""
        self._pending = self._pending or self._next()
        while self._pending is not None and (time is None or _time(self._pending) <= time):
            self._write(self._pending)
            self._pending = self._next()
        if self._pending is None and time is None:
            self._finish()

    def _add(self, stream: Stream) -> Stream:
        if stream.index not in self._transcoded:
            return _add(self._output, stream)
        transcoder = AudioTranscoder(self._output, cast(AudioStream, stream), self._part)
        self._transcoders[stream.index] = transcoder
        _tag(transcoder.stream, stream, self._output)
        return transcoder.stream

    def _write(self, packet: "Packet[Stream]") -> None:
        transcoder = self._transcoders.get(packet.stream_index)
        if transcoder is None:
            packet.stream = self._copies[packet.stream_index]
            try:
                self._output.mux_one(packet)
            except av.FFmpegError as error:  # times that run backwards, torn AAC
                if isinstance(error, OSError):
                    raise
                self._refused += 1
        else:
            self._output.mux(list(transcoder.encode(cast("Packet[AudioStream]", packet))))

    def _finish(self) -> None:
        if self._refused:
            name = self._container.name.removeprefix("file:")
            what = f"{self._refused} packets of its sound or other streams could not be copied"
            self._damage.report(f"{name} is damaged: {what}", self._refused)
        for index, transcoder in self._transcoders.items():
            self._output.mux(list(transcoder.finish()))
            if transcoder.lost:
                name = self._container.name.removeprefix("file:")
                what = f"{transcoder.lost} packets of its sound, stream #{index}, could not be decoded"
                self._damage.report(f"{name} is damaged: {what}", transcoder.lost)
        self._transcoders = {}

    def close(self) -> None:
        if self._passing is None:
            self._container.close()

    def _next(self) -> "Packet[Stream] | None":
        for packet in self._packets:
            if packet.stream_index in self._copies and self._move(packet):
                return packet
        return None

    def _demux(self) -> Iterator["Packet[Stream]"]:
        if not self._streams:
            return
        try:
            for packet in self._container.demux(self._streams):
                if self._end is not None and packet.dts is not None and _time(packet) > self._end + _INTERLEAVING:
                    return
                if packet.size:  # an empty packet marks the end, and only that
                    yield packet
        except av.error.InvalidDataError:
            name = self._container.name.removeprefix("file:")
            self._damage.report(f"{name} is damaged: its sound and other streams end early")

    def _seek(self) -> None:
        seek_to = math.floor(((self._start or 0) - _INTERLEAVING) * av.time_base)
        if seek_to > (self._container.start_time or 0):
            with contextlib.suppress(av.FFmpegError):  # then everything is read from the beginning
                self._container.seek(seek_to)

    def _move(self, packet: "Packet[Stream]") -> bool:
        """To its time in the part; False where it lies outside. A packet that ends where the part starts is kept: what
        sounds first may need it to be decoded."""
        if packet.pts is None:  # cover art
            return True
        is_text = packet.stream.type == "subtitle"
        unit = Fraction(packet.time_base)
        first, last = packet.pts, packet.pts + (packet.duration or 0)
        if self._end is not None:
            end = math.ceil(self._end / unit)
            if first >= end:
                return False
            last = min(last, end) if is_text else last
        if self._start is not None:
            start = math.floor(self._start / unit)
            if first < start and (last <= start if is_text else last < start):
                return False
            first = max(first, start) - start if is_text else first - start
            last -= start
        if packet.dts is not None:
            packet.dts += first - packet.pts
        packet.pts, packet.duration = first, last - first
        return True

    def _chapters(self) -> list["Chapter"]:
        moved: list[Chapter] = []
        first = self._start or Fraction(0)
        for chapter in self._container.chapters():
            unit = Fraction(chapter["time_base"] or 1)
            start, end = max(chapter["start"] * unit, first), chapter["end"] * unit
            end = end if self._end is None else min(end, self._end)
            if start < end:
                moved.append({**chapter, "start": round((start - first) / unit), "end": round((end - first) / unit)})
        return moved


_INTERLEAVING = Fraction(10)
"""Seconds by which packets of one moment lie apart in a file at most: FFmpeg's `max_interleave_delta`."""


def open_streams(
    source: SourceInfo, target: Path, muxers: Mapping[str, str], drop: Collection[str]
) -> StreamCopy | None:
    """All streams of `source` but its pictures; None where it can hold no others.

    Data streams that the target's container cannot hold are left out with a warning, as are further video streams;
    sound that it cannot hold is encoded anew, with a warning, where there is a codec for that (`ENCODERS`).

    The file gets a container of its own, so that nothing is shared with the thread that decodes the video.

    Args:
        source: a file, or what passes by once (then without cover art).
        target: the output file.
        muxers: by suffix: the target's, and the alternatives to name.
        drop: of `KINDS`, what to leave out.

    Raises:
        InputError: the target's container cannot hold a stream that is not left out, or `drop` names no kind.
    """
    for kind in drop:
        if kind not in KINDS:
            raise InputError(f"cannot leave out {kind!r}; expected one of {', '.join(KINDS)}")
    muxer = muxers[target.suffix.lower()]
    if source.passing is not None:
        container, shown = source.passing.container, source.passing.shown
        chosen = _chosen(container, shown, Path(container.name), target, muxers, {*drop, "attachments"})
        return StreamCopy(container, shown, chosen, source.part, source.damage, muxer, source.passing.claim())
    if source.path is None or source.is_sequence:
        return None
    container = open_container(source.path)
    try:
        shown = shown_stream(container, source.path)
        chosen = _chosen(container, shown, source.path, target, muxers, drop)
        return StreamCopy(container, shown, chosen, source.part, source.damage, muxer)
    except BaseException:
        container.close()
        raise


def _chosen(
    container: InputContainer,
    shown: VideoStream,
    path: Path,
    target: Path,
    muxers: Mapping[str, str],
    drop: Collection[str],
) -> list[Stream]:
    chosen: list[Stream] = []
    refused: list[Stream] = []
    for stream in container.streams:
        kind = _kind(stream)
        if stream is shown or kind in drop or _is_written_anew(stream):
            continue
        if kind is None:
            _log.warning("%s holds another video stream, #%d, which is left out", path, stream.index)
        elif _holds(muxers[target.suffix.lower()], stream):
            chosen.append(stream)
        elif kind == "audio" and stream.codec_context is not None and muxers[target.suffix.lower()] in ENCODERS:
            _log.warning("%s cannot hold %s of %s, which is encoded anew", target.suffix, _describe(stream), path)
            chosen.append(stream)
        elif kind == "data":
            _log.warning("%s cannot hold data stream #%d of %s, which is left out", target.suffix, stream.index, path)
        else:
            refused.append(stream)
    if refused:
        holding = [s for s, muxer in muxers.items() if all(_holds(muxer, stream) for stream in (*chosen, *refused))]
        instead = f"write {' or '.join(holding)} instead, or " if holding else ""
        options = " ".join(f"--drop {kind}" for kind in dict.fromkeys(map(_kind, refused)))
        raise InputError(
            f"{target.suffix} cannot hold {', '.join(map(_describe, refused))} of {path.name}; "
            f"{instead}leave it out with {options}"
        )
    return chosen


def _kind(stream: Stream) -> str | None:
    """Of `KINDS`, None for video."""
    if stream.type == "video":
        return "attachments" if _is_cover(stream) else None
    return {"audio": "audio", "subtitle": "subtitles", "attachment": "attachments"}.get(stream.type, "data")


def _is_cover(stream: Stream) -> bool:
    return bool(Disposition(stream.disposition) & Disposition.attached_pic)


def _is_written_anew(stream: Stream) -> bool:
    """MOV and MP4 keep chapters and timecode in streams that their muxer makes from the metadata."""
    return stream.discard == Discard.all or (stream.type == "data" and "timecode" in stream.metadata)


def _describe(stream: Stream) -> str:
    name = stream.name if isinstance(stream, AttachmentStream) else stream.codec_context and stream.codec_context.name
    return f"{name or 'unknown'} ({_kind(stream)})"


def _holds(muxer: str, stream: Stream) -> bool:
    """Asks the muxer itself, by writing the header of a file in memory; it would say nothing of losing cover art."""
    if _is_cover(stream) and muxer not in _COVER_MUXERS:
        return False
    try:
        with av.open(io.BytesIO(), "w", format=muxer) as output:
            _add(output, stream)
            output.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    return True


def _add(output: OutputContainer, stream: Stream) -> Stream:
    copy = output.add_stream_from_template(stream)
    _tag(copy, stream, output)
    if stream.codec_context is not None and stream.codec_context.name == "mov_text":
        units = Fraction(stream.time_base or 1).denominator
        copy.time_base = Fraction(1, units * math.ceil(_FINE / units))
    return copy


def _tag(copy: Stream, stream: Stream, output: OutputContainer) -> None:
    copy.disposition = stream.disposition
    copy.metadata.clear()
    copy.metadata.update(_kept(stream.metadata, output))


_FINE = 1_000_000
"""Units per second. FFmpeg's MP4 muxer ends a text, by one more empty sample, as soon as any packet's decoding time is
the larger number, whatever the units of either: with fine units for the text it never is."""


def _kept(metadata: Mapping[str, str], output: OutputContainer) -> dict[str, str]:
    """Without what describes the old file, in the words of the new one. MP4 calls the title of a stream its name."""
    kept = {key: value for key, value in metadata.items() if not key.lower().startswith(_OUTDATED_TAGS)}
    tags = {"title" if key == "name" else key: value for key, value in kept.items()}
    if output.format.name == "mov" and "language" in tags:
        tags["language"] = _APPLE_LANGUAGES.get(tags["language"], tags["language"])
    return tags


_APPLE_LANGUAGES = {
    "bod": "tib", "cym": "wel", "cze": "ces", "deu": "ger", "ell": "gre", "eus": "baq", "fas": "per",
    "fre": "fra", "hrv": "hr ", "hye": "arm", "isl": "ice", "kat": "geo", "mkd": "mac", "msa": "may", "mya": "bur",
    "nld": "dut", "rum": "ron", "slo": "slk", "sqi": "alb", "srp": "sr ", "swe": "sve", "zho": "chi",
}  # fmt: skip
"""Of the two codes that ISO 639-2 has for some languages the one that FFmpeg's MOV muxer knows; it drops others."""

_COVER_MUXERS = ("mp4", "matroska")

_OUTDATED_TAGS = (
    "major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id",
    "duration", "bps", "number_of_frames", "number_of_bytes", "_statistics",
)  # fmt: skip
"""Beginnings of the names of what a muxer writes anew, and of what mkvmerge counted in the old file."""

_REPAINTED_TAGS = {"language", "title", "handler_name", "timecode"}
"""What stays true of a video stream that is encoded anew."""


def _cover_art(container: InputContainer, streams: list[Stream]) -> list[bytes]:
    """The pictures, which FFmpeg delivers as the first packets; Matroska wants them as files."""
    pictures = {packet.stream_index: bytes(packet) for packet in islice(container.demux(streams), len(streams))}
    return [pictures[stream.index] for stream in streams]


def _file_name_and_type(stream: Stream) -> tuple[str, str]:
    """The names under which players look for cover art in Matroska."""
    kind = stream.codec_context.name.replace("mjpeg", "jpeg")
    name = stream.metadata.get("filename", f"cover.{kind.replace('jpeg', 'jpg')}")
    return name, stream.metadata.get("mimetype", f"image/{kind}")


def _time(packet: "Packet[Stream]") -> Fraction:
    """When the packet is decoded, seconds; packets that do not say follow the one before."""
    timestamp = packet.pts if packet.dts is None else packet.dts
    return timestamp * Fraction(packet.time_base) if timestamp is not None else _BEFORE_ALL


_BEFORE_ALL = Fraction(-(2**31))
