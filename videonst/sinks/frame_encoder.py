"""Frames to packets of one video stream: what a file asks of its frames, conversion, encoding."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

from av.container import OutputContainer
from av.packet import Packet
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from videonst.av_frame import FrameConverter, has_alpha, written_tags
from videonst.errors import VideoNSTError
from videonst.frame import ColourTags, Frame
from videonst.sinks.encoder import Encoder
from videonst.sources import SourceInfo

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoKind:
    """What decides how a stream is set up, by its first frame: size in pixels, time base and duration of a frame,
    colour tags, whether there is alpha."""

    width: int
    height: int
    time_base: Fraction
    duration: int
    colour: ColourTags
    has_alpha: bool

    @classmethod
    def of(cls, frame: Frame) -> "VideoKind":
        return cls(frame.width, frame.height, frame.time_base, frame.duration, frame.colour, frame.alpha is not None)


class FrameEncoder:
    """A video stream in `container`, and what turns frames into its packets.

    Attributes:
        stream: as `Encoder.add_stream` made it.
        last_time: of the frame before, seconds; None where there is none.
    """

    def __init__(
        self,
        container: OutputContainer,
        encoder: Encoder,
        source: SourceInfo | None,
        kind: VideoKind,
        target: Path,
        drop: Collection[str] = (),
    ) -> None:
        self._target = target
        self._kind = kind
        seconds = kind.duration * kind.time_base
        pixel_format = encoder.pixel_format(
            source.pixel_format if source else None, kind.width, kind.height, alpha=kind.has_alpha
        )
        self._colour = written_tags(kind.colour, kind.height, pixel_format)
        self._pixel_format = pixel_format
        self._may_lose_alpha = "alpha" not in drop and not has_alpha(VideoFormat(pixel_format))
        self._converter = FrameConverter()
        self._interval = encoder.interval
        self._is_thinned = False
        self._durations: dict[int | None, int] = {}
        self.last_time: Fraction | None = None
        self.stream: VideoStream = encoder.add_stream(
            container,
            pixel_format=pixel_format,
            size=(kind.width, kind.height),
            time_base=kind.time_base,
            rate=(source and source.average_rate) or (1 / seconds if seconds else _DEFAULT_RATE),
            aspect_ratio=source.sample_aspect_ratio if source else Fraction(1),
            colour=self._colour,
        )

    def encode(self, frame: Frame) -> list["Packet[VideoStream]"]:
        """What the encoder gives for the frame, mostly of frames before. A frame sooner than `Codec.interval` after
        the one before is left out.

        Raises:
            VideoNSTError: another size than the first frame's, or not after the frame before.
        """
        self._check(frame)
        if self._is_too_soon(frame):
            return []
        self.last_time = frame.time
        self._durations[frame.pts] = frame.duration
        picture = self._converter.to_av(replace(frame, colour=self._colour), self._pixel_format)
        return self._timed(self.stream.encode(picture))

    def flush(self) -> list["Packet[VideoStream]"]:
        """What the encoder still holds."""
        return self._timed(self.stream.encode(None))

    def _timed(self, packets: list["Packet[VideoStream]"]) -> list["Packet[VideoStream]"]:
        """Not all encoders know durations that vary."""
        for packet in packets:
            packet.duration = cast(int, self._durations.pop(packet.pts, packet.duration))
        return packets

    def _is_too_soon(self, frame: Frame) -> bool:
        if self.last_time is None or frame.time - self.last_time >= self._interval:
            return False
        if not self._is_thinned:
            _log.warning(
                "%s holds %g pictures a second at most; it lacks those between", self._target, 1 / self._interval
            )
        self._is_thinned = True
        return True

    def _check(self, frame: Frame) -> None:
        if (frame.width, frame.height) != (self._kind.width, self._kind.height):
            raise VideoNSTError(
                f"the picture size changed from {self._kind.width}x{self._kind.height} to "
                f"{frame.width}x{frame.height} at {float(frame.time):.3f} s; one file holds one size"
            )
        if self.last_time is not None and frame.time <= self.last_time:
            raise VideoNSTError(
                f"a frame at {float(frame.time):.3f} s came after one at {float(self.last_time):.3f} s; "
                "frames must come in presentation order"
            )
        if self._may_lose_alpha and frame.alpha is not None and frame.is_transparent:
            self._may_lose_alpha = False  # a clip whose first frame is opaque may turn transparent later
            _log.warning("%s cannot hold transparency, which is laid over white", self._target)


_DEFAULT_RATE = Fraction(25)
"""Frames per second told to the encoder where nothing is known; it only guides rate control, times are the frames'."""
