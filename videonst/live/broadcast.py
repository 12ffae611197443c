"""Painted frames to another program as they come: through a pipe or over the network, for OBS, ffmpeg and players."""

import contextlib
import sys
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import urlsplit

import av
import numpy as np
from av.container import OutputContainer

from videonst.av_frame import FrameConverter, set_tags, written_tags
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.sinks.stdout import StandardOutput

FORMATS = ("mpegts", "raw")
"""Of standard output: H.264 in an MPEG transport stream, or bare RGB pixels, row after row, frame after frame."""

MUXERS = {"udp": "mpegts", "tcp": "mpegts", "srt": "mpegts", "rtmp": "flv", "rtmps": "flv"}
"""How to send, by the address' scheme."""

KEY_FRAME_SECONDS = 1.0
"""Who tunes in waits for a key frame at most this long."""

OPEN_SECONDS = 10.0
"""How long a server may take to answer."""

ENCODER = {"preset": "superfast", "tune": "zerolatency", "crf": "20", "maxrate": "12M", "bufsize": "12M"}
"""Of x264: no frame is held back; good enough for a streaming site to encode again."""

DATAGRAM_BYTES = 1316
"""Seven packets of a transport stream, which fit into one Ethernet frame."""


def open_broadcast(target: str, rate: float, stream_format: str = "mpegts") -> "RawSink | BroadcastSink":
    """Opens where to send.

    Args:
        target: "-" for standard output, or an address with a scheme of `MUXERS`.
        rate: frames per second, nominal.
        stream_format: of `FORMATS`, for standard output.

    Raises:
        InputError: none of these; a terminal; nobody answers.
    """
    if target == "-":
        if stream_format not in FORMATS:
            raise InputError(f"unknown format {stream_format!r}; expected {' or '.join(FORMATS)}")
        out = StandardOutput()
        return RawSink(out, sys.stdout.buffer) if stream_format == "raw" else BroadcastSink(out.url, "mpegts", rate)
    scheme = urlsplit(target).scheme.lower()
    if scheme not in MUXERS:
        raise InputError(f"cannot send to {target!r}; expected - or one of {', '.join(f'{s}://' for s in MUXERS)}")
    address = f"{target}?pkt_size={DATAGRAM_BYTES}" if scheme == "udp" and "?" not in target else target
    return BroadcastSink(address, MUXERS[scheme], rate)


class RawSink:
    """Writes the pixels of every frame, RGB, 8 bit, and nothing else."""

    def __init__(self, out: StandardOutput, file: BinaryIO) -> None:
        self._out, self._file = out, file

    def write(self, frame: Frame) -> None:
        with self._out.writing():
            self._file.write(frame.pixels.tobytes())
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class BroadcastSink:
    """Encodes H.264 without delay and sends it at once. An odd row or column is cut off, as 4:2:0 asks for.

    Raises:
        InputError: nobody answers at `address`.
        VideoNSTError: while writing: the connection was lost, or the frames changed their size.
    """

    def __init__(self, address: str, muxer: str, rate: float) -> None:
        self._address, self._rate = address, rate
        self._converter = FrameConverter()
        self._started = False
        options = {"flush_packets": "1"}
        try:
            self._container: OutputContainer = av.open(
                address, "w", format=muxer, options=options, timeout=(OPEN_SECONDS, OPEN_SECONDS)
            )
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"cannot send to {address} ({error.strerror}); check the address and that a server listens there"
            ) from error

    def write(self, frame: Frame) -> None:
        frame = frame.with_pixels(np.ascontiguousarray(frame.pixels[: frame.height & ~1, : frame.width & ~1]))
        with self._sending():
            if not self._started:
                self._start(frame)
            if (frame.width, frame.height) != (self._stream.width, self._stream.height):
                raise VideoNSTError("the picture size changed; one stream holds one size")
            for packet in self._stream.encode(self._converter.to_av(frame, "yuv420p")):
                self._container.mux_one(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._started and error is None:
                with self._sending():
                    for packet in self._stream.encode(None):
                        self._container.mux_one(packet)
        finally:
            with contextlib.suppress(av.FFmpegError, OSError):
                self._container.close()

    def _start(self, frame: Frame) -> None:
        rate = Fraction(self._rate).limit_denominator(1001)
        group = {"g": str(max(1, round(KEY_FRAME_SECONDS * rate)))}
        self._stream = self._container.add_stream("libx264", rate=rate, options=ENCODER | group)
        self._stream.width, self._stream.height = frame.width, frame.height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = frame.time_base
        set_tags(self._stream.codec_context, written_tags(frame.colour, frame.height, "yuv420p"))
        self._started = True

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            raise VideoNSTError("whoever read standard output has gone; nothing more was sent") from error
        except (av.FFmpegError, OSError) as error:
            raise VideoNSTError(f"the connection to {self._address} was lost ({error.strerror})") from error
