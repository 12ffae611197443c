"""The sound of the source, copied into the output without decoding it."""

import io
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from videonst.errors import InputError

_log = logging.getLogger(__name__)


class AudioCopy:
    """Copies one audio stream, packet by packet, in step with the video. Made by `open_audio`.

    Attributes:
        sample_rate: samples per second.
    """

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self._container = container
        self._stream = stream
        self.sample_rate = stream.codec_context.sample_rate

    def start(self, output: OutputContainer) -> None:
        """Adds the stream to the output; before the first packet of any stream is written."""
        self._output = output
        self._copied = output.add_stream_from_template(self._stream)
        self._copied.metadata.update(self._stream.metadata)
        self._packets = self._demux()
        self._pending = next(self._packets, None)

    def copy_until(self, time: Fraction | None) -> None:
        """Copies what is decoded up to `time` (seconds), everything that is left where None."""
        while self._pending is not None and (time is None or _time(self._pending) <= time):
            self._pending.stream = self._copied
            self._output.mux_one(self._pending)
            self._pending = next(self._packets, None)

    def close(self) -> None:
        self._container.close()

    def _demux(self) -> Iterator["Packet[AudioStream]"]:
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:  # an empty packet marks the end, and only that
                    yield packet
        except av.error.InvalidDataError:
            _log.warning("%s is damaged: its sound ends early", self._container.name.removeprefix("file:"))


def open_audio(path: Path, target: Path, muxers: dict[str, str]) -> AudioCopy | None:
    """The first audio stream of `path`; None where there is none.

    The file gets a container of its own, so that nothing is shared with the thread that decodes the video.

    Args:
        path: the file with the sound.
        target: the output file.
        muxers: by suffix: the target's, and the alternatives to name.

    Raises:
        InputError: the target's container cannot hold this codec.
    """
    try:
        container = av.open(f"file:{path}")
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"cannot read the sound of {path}: {error.strerror}; or leave the sound out") from error
    streams = container.streams.audio
    if not streams:
        container.close()
        return None
    if len(streams) > 1:
        _log.warning("%s holds %d audio streams; only the first is copied", path, len(streams))
    holding = [suffix for suffix, muxer in muxers.items() if _holds(muxer, streams[0])]
    if target.suffix.lower() not in holding:
        codec = streams[0].codec_context.name
        container.close()
        advice = f"write {' or '.join(holding)} instead, or leave the sound out" if holding else "leave the sound out"
        raise InputError(f"{target.suffix} cannot hold the {codec} sound of {path.name}; {advice}")
    return AudioCopy(container, streams[0])


def _holds(muxer: str, stream: AudioStream) -> bool:
    """Asks the muxer itself, by writing the header of a file in memory."""
    try:
        with av.open(io.BytesIO(), "w", format=muxer) as output:
            output.add_stream_from_template(stream)
            output.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    return True


def _time(packet: "Packet[AudioStream]") -> Fraction:
    """When the packet is decoded, seconds; packets that do not say follow the one before."""
    timestamp = packet.pts if packet.dts is None else packet.dts
    return timestamp * Fraction(packet.time_base) if timestamp is not None else _BEFORE_ALL


_BEFORE_ALL = Fraction(-(2**31))
