"""How the pictures of an output are encoded: the codec chosen, set up and tried before work starts."""

import os
from collections.abc import Mapping
from fractions import Fraction
from typing import cast

import av
import cv2
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from videonst.av_frame import has_alpha, set_tags
from videonst.errors import InputError
from videonst.frame import ColourTags
from videonst.sinks.codecs import CODECS, DEFAULT_CODEC, DEFAULT_CODECS


class Encoder:
    """How the pictures of one output are encoded. All is tried before work starts.

    Args:
        codec: of `CODECS`; None takes what is usual in the container.
        muxer: FFmpeg's name of the container.
        crf: quality as the codec counts it, mostly lower is better; None takes the codec's default.
        preset: speed as the codec names it; None takes the codec's default.
        options: further options of FFmpeg's encoder, `pix_fmt` among them.
        keep_alpha: whether transparency is to be written where codec and container can.

    Raises:
        InputError: an unknown codec or one that does not work here or not in this container, a crf, preset, option or
            pixel format that it does not have.
    """

    def __init__(
        self,
        codec: str | None,
        muxer: str,
        *,
        crf: float | None = None,
        preset: str | None = None,
        options: Mapping[str, str] | None = None,
        keep_alpha: bool = True,
    ) -> None:
        self.name = codec or DEFAULT_CODECS.get(muxer, DEFAULT_CODEC)
        if self.name not in CODECS:
            raise InputError(f"unknown codec {self.name!r}; expected one of {', '.join(CODECS)}")
        self._codec = CODECS[self.name]
        self._muxer = muxer
        if muxer not in self._codec.muxers:
            fitting = ", ".join(name for name, other in CODECS.items() if muxer in other.muxers and "_" not in name)
            raise InputError(f"{muxer} cannot hold {self.name}; choose one of {fitting}, or another container")
        self._wanted = dict(options or {})
        self._pixel_format = self._wanted.pop("pix_fmt", None)
        self._options = self._set_up(crf, preset)
        self._keep_alpha = keep_alpha and muxer in self._codec.alpha_muxers
        try:
            self._formats = [f.name for f in av.Codec(self._codec.encoder, "w").video_formats or ()]
        except av.codec.codec.UnknownCodecError as error:
            raise InputError(f"codec {self.name} is not part of this FFmpeg; {_alternatives(muxer)}") from error
        if self._pixel_format and self._pixel_format not in self._formats:
            known = ", ".join(name for name in self._formats)
            raise InputError(f"{self.name} has no pixel format {self._pixel_format!r}; expected one of {known}")

    @property
    def interval(self) -> Fraction:
        """Seconds from one picture to the next, at least."""
        return self._codec.interval

    @property
    def holds_alpha(self) -> bool:
        """Whether transparency can be written."""
        if self._pixel_format:
            return self._keep_alpha and has_alpha(VideoFormat(self._pixel_format))
        return self._keep_alpha

    def pixel_format(self, stored: str | None, width: int, height: int, *, alpha: bool) -> str:
        """What pictures are written as: with as much chroma as they were `stored` with, as ffmpeg does, where the codec
        has that; with 8 bits where it has them, since that is what engines give; and never cropped.

        Args:
            stored: FFmpeg's name of the source's format, 4:2:0 where None.
            width, height: pixels.
            alpha: whether the pictures have alpha, which is written where it can be.
        """
        if self._pixel_format:
            return self._pixel_format
        formats = [f for f in self._codec.pixel_formats if has_alpha(VideoFormat(f)) == (alpha and self.holds_alpha)]
        formats = formats or list(self._codec.pixel_formats)
        is_odd = bool(width % 2 or height % 2) and not self._codec.any_size
        chroma = 4 if is_odd else _chroma(stored or "yuv420p")
        return next((f for f in formats if _chroma(f) >= chroma), formats[-1])

    def check(self, pixel_format: str, width: int, height: int) -> None:
        """Opens the encoder once.

        Raises:
            InputError: it does not work here, or not with these options.
        """
        os.environ.setdefault("SVT_LOG", "1")  # or SVT-AV1 tells its life on stderr
        trial = cast(VideoCodecContext, VideoCodecContext.create(self._codec.encoder, "w"))
        self._prepare(trial, pixel_format, width, height, Fraction(1, 25))
        trial.framerate = Fraction(25)
        trial.options = dict(self._options)
        try:
            trial.open()
        except (av.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            if self.name != self._codec.encoder:
                raise InputError(
                    f"{self.name} does not take these settings for {width}x{height} {pixel_format} ({reason}); "
                    f"check {', '.join(f'{key}={value}' for key, value in self._options.items())}"
                ) from error
            raise InputError(
                f"codec {self.name} does not work here ({reason}); {_alternatives(self._muxer)}"
            ) from error
        unknown = [key for key in self._wanted if key in trial.options]
        if unknown:
            raise InputError(
                f"{self.name} has no option {', '.join(unknown)}; see ffmpeg -h encoder={self._codec.encoder}"
            )

    def add_stream(
        self,
        container: OutputContainer,
        *,
        pixel_format: str,
        size: tuple[int, int],
        time_base: Fraction,
        rate: Fraction,
        aspect_ratio: Fraction,
        colour: ColourTags,
    ) -> VideoStream:
        """The stream in `container`, ready for frames of this kind.

        Args:
            pixel_format: as `pixel_format` gave it.
            size: (width, height), pixels.
            time_base: seconds per unit of the frames' times.
            rate: frames per second, which only guides rate control.
            aspect_ratio: width of a pixel over its height.
            colour: tags to write.
        """
        stream = cast(VideoStream, container.add_stream(self._codec.encoder, rate=rate, options=dict(self._options)))
        self._prepare(stream.codec_context, pixel_format, *size, time_base)
        stream.codec_context.sample_aspect_ratio = aspect_ratio
        set_tags(stream.codec_context, colour)
        if self._codec.tag and container.format.name in TAGGED_MUXERS:
            stream.codec_context.codec_tag = self._codec.tag
        if self._codec.encoder == "libvpx-vp9" and has_alpha(VideoFormat(pixel_format)):
            stream.metadata["alpha_mode"] = "1"
        return stream

    def _prepare(
        self, context: VideoCodecContext, pixel_format: str, width: int, height: int, time_base: Fraction
    ) -> None:
        context.width, context.height, context.pix_fmt = width, height, pixel_format
        context.time_base = time_base
        context.flags |= Flags.frame_duration  # without it PyAV's durations do not reach the muxer
        context.thread_type = "FRAME"  # PyAV's own choice, slices, costs quality

    def _set_up(self, crf: float | None, preset: str | None) -> dict[str, str]:
        codec = self._codec
        options = dict(codec.fixed)
        if codec.quality:
            crf = codec.crf if crf is None else crf
            if not min(codec.best, codec.worst) <= crf <= max(codec.best, codec.worst):
                raise InputError(
                    f"crf {crf:g} is out of range; {self.name} takes {codec.best:g} (best) to {codec.worst:g} (worst)"
                )
            options[codec.quality] = f"{crf * codec.unit:g}"
        elif crf is not None:
            raise InputError(f"{self.name} has no crf; leave it out")
        if preset is not None and preset not in codec.presets:
            known = f"expected one of {', '.join(codec.presets)}" if codec.presets else "leave it out"
            raise InputError(f"unknown preset {preset!r} for {self.name}; {known}")
        if codec.presets:
            options[codec.preset_option] = preset or codec.preset
        if codec.encoder == "libx264" and cv2.checkHardwareSupport(_AVX_512):
            options["x264-params"] = _REPRODUCIBLE
        for key, value in self._wanted.items():
            is_list = key in ("x264-params", "x265-params") and key in options
            options[key] = f"{options[key]}:{value}" if is_list else value
        return options


TAGGED_MUXERS = ("mp4", "mov")
"""Containers in which a codec has names of four letters."""

_AVX_512 = 13
"""OpenCV's number for it."""

_REPRODUCIBLE = "asm=avx2"
"""With AVX-512 x264's macroblock tree reads memory that was never written, so that no two runs give the same file, and
a resumed conversion could not match an uninterrupted one."""


def _chroma(pixel_format: str) -> int:
    """2 for 4:2:0 and less, 3 for 4:2:2, 4 for 4:4:4 and RGB."""
    kind = VideoFormat(pixel_format)
    if kind.is_rgb or kind.has_palette:
        return 4
    if len(kind.components) < 3:
        return 2
    whole = (kind.chroma_width(4) == 4, kind.chroma_height(4) == 4)
    return {(True, True): 4, (False, True): 3, (True, False): 4}.get(whole, 2)


def _alternatives(muxer: str) -> str:
    software = [name for name, codec in CODECS.items() if muxer in codec.muxers and "_" not in name]
    return f"use one of {', '.join(software)}"
