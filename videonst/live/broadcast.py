"""Painted frames to another program as they come: through a pipe or over the network, for OBS, ffmpeg and players."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import urlsplit

import av
import numpy as np
from av.container import OutputContainer

from videonst.av_frame import FrameConverter, set_tags, written_tags
from videonst.errors import InputError, VideoNSTError
from videonst.frame import ColourTags, Frame
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

TIME_BASE = Fraction(1, 90_000)
"""Of MPEG transport streams (ISO/IEC 13818-1)."""

DATAGRAM_BYTES = 1316
"""Seven packets of a transport stream, which fit into one Ethernet frame."""


def open_broadcast(
    target: str, size: tuple[int, int], rate: float, stream_format: str = "mpegts"
) -> "RawSink | BroadcastSink":
    """Opens where to send.

    Args:
        target: "-" for standard output, or an address with a scheme of `MUXERS`.
        size: of the frames, (width, height), pixels.
        rate: frames per second, nominal.
        stream_format: of `FORMATS`, for standard output.

    Raises:
        InputError: none of these; a terminal; nobody answers.
    """
    if target == "-":
        if stream_format not in FORMATS:
            raise InputError(f"unknown format {stream_format!r}; expected {' or '.join(FORMATS)}")
        out = StandardOutput()
        return (
            RawSink(out, sys.stdout.buffer) if stream_format == "raw" else BroadcastSink(out.url, "mpegts", size, rate)
        )
    scheme = urlsplit(target).scheme.lower()
    if scheme not in MUXERS:
        raise InputError(f"cannot send to {target!r}; expected - or one of {', '.join(f'{s}://' for s in MUXERS)}")
    address = f"{target}?pkt_size={DATAGRAM_BYTES}" if scheme == "udp" and "?" not in target else target
    return BroadcastSink(address, MUXERS[scheme], size, rate)


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

    def __init__(self, address: str, muxer: str, size: tuple[int, int], rate: float) -> None:
        self._address = address
        self._converter = FrameConverter()
        self._size = size
        exact = Fraction(rate).limit_denominator(1001)
        group = {"g": str(max(1, round(KEY_FRAME_SECONDS * exact)))}
        try:
            self._container: OutputContainer = av.open(
                address, "w", format=muxer, options={"flush_packets": "1"}, timeout=(OPEN_SECONDS, OPEN_SECONDS)
            )
            self._stream = self._container.add_stream("libx264", rate=exact, options=ENCODER | group)
            self._stream.width, self._stream.height = size[0] & ~1, size[1] & ~1
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = TIME_BASE
            self._colour = written_tags(ColourTags(), size[1], "yuv420p")
            set_tags(self._stream.codec_context, self._colour)
            self._container.start_encoding()  # connects
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"cannot send to {address} ({error.strerror}); check the address and that a server listens there"
            ) from error

    def write(self, frame: Frame) -> None:
        if (frame.width, frame.height) != self._size:
            raise VideoNSTError(
                f"the picture size changed from {self._size[0]}x{self._size[1]} to {frame.width}x{frame.height}; "
                "one stream holds one size"
            )
        even = np.ascontiguousarray(frame.pixels[: self._stream.height, : self._stream.width])
        with self._sending():
            picture = self._converter.to_av(replace(frame, pixels=even, colour=self._colour), "yuv420p")
            for packet in self._stream.encode(picture):
                self._container.mux_one(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with self._sending():
                    for packet in self._stream.encode(None):
                        self._container.mux_one(packet)
        finally:
            with contextlib.suppress(av.FFmpegError, OSError):
                self._container.close()

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            raise VideoNSTError("whoever read standard output has gone; nothing more was sent") from error
        except (av.FFmpegError, OSError) as error:
            raise VideoNSTError(f"the connection to {self._address} was lost ({error.strerror})") from error
