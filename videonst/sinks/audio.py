"""Sound that the container cannot hold as it is, decoded and encoded anew."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.filter import Graph

from videonst.trim import Trim

if TYPE_CHECKING:
    from av.packet import Packet

ENCODERS = {"webm": "libopus", "mp4": "aac", "mov": "aac", "mpegts": "aac"}
"""By container: what players expect in it. Those that are not here take sound as it is or not at all."""

BIT_RATE = 96_000
"""Bits per second for each channel: transparent for Opus and close to it for FFmpeg's AAC."""


class AudioTranscoder:
    """One stream of sound on its way into `output`, at its times. Silence fills gaps of 0.1 s and more; a part is cut
    to the sample.

    Attributes:
        stream: of the output.
        lost: packets that could not be decoded.
    """

    def __init__(self, output: OutputContainer, source: AudioStream, part: Trim) -> None:
        rate = written_rate(output.format.name, source)
        layout = _LAYOUTS.get(source.codec_context.channels, "stereo")
        self.stream = cast(AudioStream, output.add_stream(ENCODERS[output.format.name], rate=rate, layout=layout))
        self.stream.codec_context.bit_rate = BIT_RATE * self.stream.codec_context.channels
        self.lost = 0
        self._part = part
        self._graph: Graph | None = None

    def encode(self, packet: "Packet[AudioStream]") -> Iterator["Packet[AudioStream]"]:
        """What one packet of the source, at its time in the part, becomes."""
        try:
            frames = packet.decode()
        except av.FFmpegError:
            self.lost += 1
            return
        for frame in frames:
            if self._graph is None:
                self._graph = self._steady(frame)
            self._graph.push(frame)
            yield from self._pull()

    def finish(self) -> Iterator["Packet[AudioStream]"]:
        """The rest."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull()
            yield from self.stream.encode(None)

    def _steady(self, frame: AudioFrame) -> Graph:
        """Filters that make sound continuous, and cut it."""
        graph = Graph()
        source = graph.add_abuffer(
            sample_rate=frame.sample_rate, format=frame.format, layout=frame.layout, time_base=frame.time_base
        )
        nodes = [source, graph.add("aresample", "async=1")]
        start, end = self._part.start, self._part.end
        cuts = ["start=0"] if start is not None else []
        cuts += [f"end={float(end - (start or 0)):.6f}"] if end is not None else []
        if cuts:
            nodes.append(graph.add("atrim", ":".join(cuts)))
        graph.link_nodes(*nodes, graph.add("abuffersink")).configure()
        return graph

    def _pull(self) -> Iterator["Packet[AudioStream]"]:
        while True:
            try:
                frame = cast(AudioFrame, cast(Graph, self._graph).pull())
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield from self.stream.encode(frame)


def written_rate(muxer: str, source: AudioStream) -> int:
    """Samples per second of `source` as it is encoded anew: its own where the encoder has that."""
    rates = av.Codec(ENCODERS[muxer], "w").audio_rates
    rate = source.codec_context.sample_rate
    return rate if rates is None or rate in rates else _RATE


_RATE = 48000

_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""By number of channels, as both encoders know them."""
