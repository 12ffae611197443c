"""Video that passes by once: it cannot be opened a second time, nor sought in."""

import os
import select
import stat
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sources.damage import Damage
from videonst.sources.source import SourceInfo
from videonst.sources.video import VideoFileSource
from videonst.trim import WHOLE, Trim


class PassingStreams:
    """The streams that come along with the pictures of a `PassingSource`, for whoever claims them in time.

    Attributes:
        container: what they come from, for its metadata and streams. Packets are read by the source alone.
        shown: the video stream that the source decodes.
    """

    def __init__(self, container: InputContainer, shown: VideoStream) -> None:
        self.container = container
        self.shown = shown
        self._packets: deque[Packet[Stream]] | None = deque()
        self._claimed = False

    def claim(self) -> Iterator["Packet[Stream]"]:
        """The packets, in the order of the file. Ends whenever none is there *yet*: ask again after the next frame.

        Raises:
            InputError: the frames are being read already.
        """
        if self._packets is None:
            raise InputError("sound and other streams must be claimed before the first frame is read")
        self._claimed = True
        return _Arrived(self._packets)

    def add(self, packet: "Packet[Stream]") -> None:
        if self._packets is not None:
            self._packets.append(packet)

    def close_unclaimed(self) -> None:
        """From here on nothing is kept for those who have not asked."""
        if not self._claimed:
            self._packets = None


class PassingSource(VideoFileSource, ABC):
    """Frames of a container that is read once, from the beginning. `info.path` is None; the other streams are in
    `info.passing`.

    Raises:
        InputError: not a video, or no picture in it.
    """

    _seekable = False

    def __init__(self, name: str, trim: Trim = WHOLE, damage: Damage | None = None, *, hdr: str = "tonemap") -> None:
        self._name = name
        super().__init__(name, trim, damage, hdr=hdr)

    def _open(self) -> None:
        super()._open()
        self._passing = PassingStreams(self._container, self._stream)

    @abstractmethod
    def _open_container(self) -> InputContainer:
        """Opens what is read."""

    def __iter__(self) -> Iterator[Frame]:
        self._passing.close_unclaimed()
        return super().__iter__()

    def _demux(self) -> Iterator["Packet[VideoStream]"]:
        for packet in self._container.demux():
            if packet.stream_index == self._stream.index:
                yield packet  # type: ignore[misc]
            elif packet.size:
                self._passing.add(packet)

    def _info(self, first: Frame, trim: Trim) -> SourceInfo:
        return replace(super()._info(first, trim), path=None, passing=self._passing)


class StandardInput(PassingSource):
    """Standard input (`-`): a container that can be read front to back, such as Matroska, MPEG-TS or fragmented MP4;
    any, where a file was redirected into it.

    Raises:
        InputError: standard input is a terminal, or not such a container.
    """

    def __init__(
        self,
        trim: Trim = WHOLE,
        damage: Damage | None = None,
        stream: BinaryIO | None = None,
        *,
        hdr: str = "tonemap",
    ) -> None:
        self._input = _Interruptible(sys.stdin.buffer if stream is None else stream)
        super().__init__("standard input", trim, damage, hdr=hdr)

    def stop(self) -> None:
        """Ends a read that waits; from any thread."""
        self._input.stop()

    def _open_container(self) -> InputContainer:
        descriptor = self._input.descriptor
        if os.isatty(descriptor):
            raise InputError("standard input is a terminal; pipe a video in, or name a file instead of -")
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        try:
            return av.open(self._input.stream if is_file else self._input, "r", metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                "standard input is no video that can be read front to back; expected Matroska, MPEG-TS or fragmented "
                "MP4 (other MP4 files: name the file)"
            ) from error


class _Interruptible:
    """Reads from a pipe, and can be told to give up from another thread. Has no `seek`, by which FFmpeg knows."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.descriptor = stream.fileno()
        self._stopped = threading.Event()

    def read(self, size: int) -> bytes:
        while not self._stopped.is_set():
            if sys.platform == "win32" or select.select([self.descriptor], [], [], _POLL_SECONDS)[0]:
                return os.read(self.descriptor, size)
        return b""

    def stop(self) -> None:
        self._stopped.set()


_POLL_SECONDS = 0.1
"""How soon a read that waits for a pipe notices that it should stop."""


class _Arrived:
    """An iterator over what has arrived: it ends when there is nothing, and goes on when there is something again."""

    def __init__(self, packets: "deque[Packet[Stream]]") -> None:
        self._packets = packets

    def __iter__(self) -> Iterator["Packet[Stream]"]:
        return self

    def __next__(self) -> "Packet[Stream]":
        try:
            return self._packets.popleft()
        except IndexError:
            raise StopIteration from None
