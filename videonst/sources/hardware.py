"""Decoding by hardware: which devices there are, which of them work, and which files they decode as software does.

PyAV brings the pictures into the processor's memory, in the device's formats (NV12, P010), with all that FFmpeg says of
them. What hardware cannot give is found out before: FFmpeg crops its pictures only at the right and at the bottom, and
falls back to software by itself, without saying so.
"""

import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.codec.codec import Codec, UnknownCodecError
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from videonst.errors import InputError
from videonst.sources.video import alpha_decoder, open_container, shown_stream

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hardware:
    """What decodes one file.

    Attributes:
        accelerator: for `av.open`.
        pixel_format: FFmpeg's name of the format in which the file stores its pictures; the device has its own.
    """

    accelerator: HWAccel
    pixel_format: str


class UnfitError(Exception):
    """Why a device does not work, or does not decode a file as software does."""


def hardware_decoders() -> dict[str, list[str]]:
    """The devices that this PyAV can decode on, by FFmpeg's names (`cuda`, `videotoolbox`, `d3d11va` …), each with the
    codecs for which it could; whether there is such a device is another question."""
    found: dict[str, list[str]] = {}
    for name in _CODECS:
        with contextlib.suppress(UnknownCodecError):
            for device in _devices(Codec(name, "r")):
                found.setdefault(device, []).append(name)
    return found


def check_hardware(device: str, *, strict: bool = False) -> None:
    """Opens the device once.

    Args:
        device: a key of `hardware_decoders`.
        strict: damage of what it decodes is to be an error.

    Raises:
        InputError: it is none, it does not work here, or `strict`: hardware conceals damage without saying so.
    """
    if strict:
        raise InputError(
            "hardware decoders conceal damage, so that there is nothing to be strict about; leave out --hwaccel "
            "(hwaccel=) or --strict (strict=True)"
        )
    try:
        _try(device)
    except UnfitError as error:
        raise InputError(
            f"{device} decodes nothing here: {error}; leave out --hwaccel (hwaccel=) to decode in software"
        ) from error


def hardware_for(path: Path, device: str) -> Hardware | None:
    """How `device`, which works, decodes the video file at `path`; None, with a warning, where it does not, or not as
    software does.

    Raises:
        InputError: no video file.
    """
    try:
        return _fit(path, device)
    except UnfitError as reason:
        _log.warning("%s is decoded in software: %s", path, reason)
        return None


def trouble(device: str, clip: Path) -> str:
    """Why `device` does not decode `clip` as software does; empty where it does."""
    try:
        _try(device)
        _fit(clip, device)
    except UnfitError as reason:
        return str(reason)
    return ""


def _try(device: str) -> None:
    decoders = hardware_decoders()
    if device not in decoders:
        raise UnfitError(f"this PyAV can decode on {', '.join(decoders) or 'no hardware'}")
    if int(av.__version__.partition(".")[0]) < _OLDEST_PYAV:
        raise UnfitError(f"PyAV {av.__version__} loses what pictures say of themselves; run: pip install 'av>=18'")
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)  # only FFmpeg's log tells what is wrong
    try:
        with av.logging.Capture() as said:
            VideoCodecContext.create(decoders[device][0], "r", hwaccel=HWAccel(device))
    except av.FFmpegError as error:
        raise UnfitError(said[0][2].strip() if said else error.strerror) from error
    finally:
        av.logging.set_level(level)


def _fit(path: Path, device: str) -> Hardware:
    """
    Raises:
        UnfitError: `device` does not decode the file, or to other pictures than software does.
        InputError: no video file.
    """
    if not path.is_file():
        raise UnfitError("it can be read only once")
    accelerator = HWAccel(device, allow_software_fallback=True)
    with open_container(path) as container:
        stream = shown_stream(container, path)
        codec = stream.codec_context.codec
        if alpha_decoder(stream):
            raise UnfitError(f"{device} does not decode transparency")
        if device not in _devices(codec):
            raise UnfitError(f"{device} does not decode {codec.canonical_name}")
        with open_container(path, accelerator) as other:
            pairs = itertools.zip_longest(_decoded(other, path), _decoded(container, path))
            return Hardware(accelerator, _compared(pairs, device, codec.canonical_name))


def _compared(pairs: Iterable[tuple[VideoFrame | None, VideoFrame | None]], device: str, codec: str) -> str:
    """The format of the pictures in software, after as many as it takes to see something in them: in flat ones nothing
    would be out of place."""
    pixel_format = ""
    for hardware, software in itertools.islice(pairs, _MOST_COMPARED):
        if hardware is None:
            raise UnfitError(f"{device} does not decode this kind of {codec}")
        if software is None or _said(hardware) != _said(software):
            raise UnfitError(f"{device} says other things of its pictures than software does")
        pixel_format = software.format.name
        ours, theirs = _planes(hardware.reformat(format=pixel_format)), _planes(software)
        apart = max(float(np.abs(a - b).mean()) for a, b in zip(ours, theirs, strict=True))
        if apart > _TOLERANCE.get(codec, 0):
            raise UnfitError(f"{device} decodes it to other pictures")
        if theirs[0].std() > _FLAT:
            break
    return pixel_format


def _decoded(container: InputContainer, path: Path) -> Iterator[VideoFrame | None]:
    """What can be decoded; None where a decoder for hardware has fallen back to software."""
    stream = shown_stream(container, path)
    decoder = stream.codec_context
    for packet in container.demux(stream):
        with contextlib.suppress(av.FFmpegError):
            for picture in decoder.decode(packet):
                # The decoder's own format is that of the device's memory; pictures have been brought from there.
                yield None if decoder.is_hwaccel and decoder.pix_fmt == picture.format.name else picture


def _said(picture: VideoFrame) -> tuple[object, ...]:
    """What the file says of a picture, as far as anything here follows from it."""
    matrix = cast("bytes | None", picture.side_data.get("DISPLAYMATRIX"))
    return (
        *(getattr(picture, name) for name in _PROPERTIES),
        matrix and bytes(matrix),
        SideData.MASTERING_DISPLAY_METADATA in picture.side_data,
    )


def _planes(picture: VideoFrame) -> list[npt.NDArray[np.float32]]:
    """Levels of each plane as parts of the largest, 0 to 1."""
    bits = picture.format.components[0].bits
    kind = "u1" if bits <= 8 else "u2"
    return [
        np.frombuffer(bytes(plane), kind).reshape(plane.height, -1)[:, : plane.width].astype(np.float32) / 2**bits
        for plane in picture.planes
    ]


def _devices(codec: Codec) -> list[str]:
    """The devices on which this decoder works besides in software."""
    return [config.device_type.name for config in codec.hardware_configs if config.is_supported]


_CODECS = ("h264", "hevc", "vp9", "vp8", "mpeg2video", "mpeg1video", "mpeg4", "vc1", "mjpeg", "prores")
"""FFmpeg's decoders that can have the work done by hardware, of what is common in files. AV1 is decoded by dav1d, which
cannot."""

_PROPERTIES = (
    "width", "height", "pts", "duration", "key_frame", "interlaced_frame", "is_corrupt",
    "colorspace", "color_primaries", "color_trc", "color_range",
)  # fmt: skip

_TOLERANCE = dict.fromkeys(("mpeg1video", "mpeg2video", "mpeg4", "mjpeg"), 1 / 256)
"""Mean difference, in parts of the largest level, by codec: these do not prescribe the cosine transform to the bit, the
others do."""

_FLAT = 4 / 256
"""Standard deviation of the brightness, in parts of the largest level, below which there is nothing to see."""

_MOST_COMPARED = 250
"""Pictures; ten seconds of a film."""

_OLDEST_PYAV = 18
"""PyAV 17 copies only the time of a picture that comes from hardware."""
