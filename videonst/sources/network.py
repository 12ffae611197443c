"""Video from a network address."""

import re
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import cast
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sources.damage import Damage
from videonst.sources.passing import PassingSource
from videonst.sources.source import ADDRESS_SCHEMES
from videonst.sources.video import shown_stream
from videonst.trim import WHOLE, Trim

DEFAULT_TIMEOUT = 10.0
"""Seconds without data after which a server counts as dead."""


def open_address(
    address: str,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    low_delay: bool = False,
    trim: Trim = WHOLE,
    damage: Damage | None = None,
    hdr: str = "tonemap",
) -> "NetworkSource":
    """Opens a network address.

    Args:
        address: see `ADDRESS_SCHEMES`; HLS is an http address of a playlist.
        timeout: seconds to wait for the connection, for every packet, and for a lost camera to come back.
        low_delay: every frame as soon as it is decoded, for showing live; durations are nominal.
        trim: the part to take, counted from where sound or picture starts.
        hdr: as in `open_source`.

    Raises:
        InputError: no such protocol, no answer within `timeout`, or no video there.
    """
    return NetworkSource(address, timeout=timeout, low_delay=low_delay, trim=trim, damage=damage, hdr=hdr)


class NetworkSource(PassingSource):
    """A network address. Interrupted downloads go on where they stopped; a camera that is lost is called again for
    `timeout` seconds, and time goes on as the clock does meanwhile. If it does not come back, the source ends with a
    report of damage.

    Raises:
        InputError: see `open_address`.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        low_delay: bool = False,
        trim: Trim = WHOLE,
        damage: Damage | None = None,
        hdr: str = "tonemap",
    ) -> None:
        self._scheme = urlsplit(address).scheme.lower()
        if self._scheme not in ADDRESS_SCHEMES:
            raise InputError(f"cannot open {address}: expected one of {', '.join(f'{s}://' for s in ADDRESS_SCHEMES)}")
        if not timeout > 0:
            raise InputError(f"the time-out is {timeout:g} s; expected more than 0")
        self._address = address
        self._timeout = timeout
        self._low_delay = low_delay
        self._stopped = threading.Event()
        super().__init__(_without_password(address), trim, damage, hdr=hdr)

    def stop(self) -> None:
        """No more attempts to connect; a read that waits ends with its time-out. From any thread."""
        self._stopped.set()

    def _open_container(self) -> InputContainer:
        options = {}
        if self._scheme.startswith("http"):
            options = {"reconnect": "1", "reconnect_streamed": "1", "reconnect_delay_max": f"{self._timeout / 2:.0f}"}
        elif self._scheme.startswith("rtsp"):
            options = {"rtsp_flags": "prefer_tcp"}  # over UDP lost packets tear pictures
        if self._low_delay:
            options |= {"flags": "low_delay", "analyzeduration": f"{_ANALYSED_SECONDS * 1e6:.0f}"}
        started = time.monotonic()
        try:
            return av.open(
                self._address, options=options, timeout=(self._timeout, self._timeout), metadata_errors="replace"
            )
        except (av.FFmpegError, OSError) as error:
            if isinstance(error, av.error.ExitError) or time.monotonic() - started >= self._timeout:
                raise InputError(
                    f"{self._name} did not answer within {self._timeout:g} s; check the address and that it is sending"
                ) from error
            if isinstance(error, av.error.ProtocolNotFoundError):
                raise InputError(
                    f"cannot open {self._name}: FFmpeg was built without {self._scheme} here; use another protocol, or "
                    "a PyAV built against an FFmpeg that has it"
                ) from error
            if isinstance(error, av.error.InvalidDataError):
                raise InputError(f"what {self._name} sends is no video; check the address") from error
            raise InputError(f"cannot open {self._name}: {_reason(error)}; check the address") from error

    def _decode_from(self, stream: VideoStream) -> None:
        super()._decode_from(stream)
        if self._low_delay:
            self._stream.thread_type = "SLICE"  # threads that take a frame each hold frames back

    def _timed(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        if not self._low_delay:
            yield from super()._timed(frames)
            return
        for frame in frames:
            yield self._shifted(frame, frame.duration or self._nominal_duration())

    def _demux(self) -> Iterator["Packet[VideoStream]"]:
        clock = _Clock()
        while True:
            failure = "it ended"
            flush: Packet[VideoStream] | None = None
            try:
                for packet in self._container.demux():
                    if packet.size:
                        clock.shift(packet)
                    if packet.stream_index == self._stream.index:
                        yield packet  # type: ignore[misc]
                    elif packet.size:
                        self._passing.add(packet)
                if not self._is_camera() or self._stopped.is_set():
                    return
            except av.FFmpegError as error:
                timed_out = isinstance(error, av.error.ExitError)
                failure = f"nothing came for {self._timeout:g} s" if timed_out else _reason(error)
                flush = self._flush()
            if flush is not None:
                yield flush
            if not (self._is_camera() and self._reconnect()):
                if not self._stopped.is_set():
                    self._damage.report(f"the connection to {self._name} was lost ({failure}); what came is kept")
                return
            clock.restart()

    def _flush(self) -> "Packet[VideoStream]":
        """Empties the decoder."""
        packet = cast("Packet[VideoStream]", Packet())
        packet.stream = self._stream
        return packet

    def _is_camera(self) -> bool:
        """Sends what happens now, so that calling again goes on instead of starting over."""
        return self._scheme in _CAMERA_SCHEMES and self._container.duration is None

    def _reconnect(self) -> bool:
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline and not self._stopped.wait(_PAUSE_SECONDS):
            try:
                container = self._open_container()
            except InputError:
                continue
            try:
                stream = shown_stream(container, self._name)
            except InputError:
                container.close()
                continue
            self._container.close()
            self._container = container
            self._decode_from(stream)
            return True
        return False


class _Clock:
    """Lets the times of a connection go on where those of the one before stopped."""

    def __init__(self) -> None:
        self._offset = Fraction(0)
        self._last: Fraction | None = None
        self._arrived = 0.0
        self._is_new = False

    def restart(self) -> None:
        self._is_new = True

    def shift(self, packet: "Packet[Stream]") -> None:
        if packet.dts is None or packet.time_base is None:
            return
        unit = Fraction(packet.time_base)
        time_then = packet.dts * unit
        if self._is_new and self._last is not None:
            self._offset = self._last + Fraction(time.monotonic() - self._arrived) - time_then
            self._is_new = False
        self._last, self._arrived = time_then + self._offset, time.monotonic()
        if self._offset:
            shift = round(self._offset / unit)
            packet.dts += shift
            if packet.pts is not None:
                packet.pts += shift


_CAMERA_SCHEMES = ("rtsp", "rtsps", "udp", "rtp", "srt", "tcp")

_ANALYSED_SECONDS = 0.5
"""How much of a live stream FFmpeg reads at most to learn what it holds. (`nobuffer` would throw that part away, and
the first key frame with it.)"""

_PAUSE_SECONDS = 0.5
"""Between two attempts to connect."""


def _without_password(address: str) -> str:
    """For messages: `rtsp://user:secret@host/path` names the host and the path."""
    return re.sub(r"^(\w+://)[^/@]*@", r"\1", address)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
