"""Between `Frame` and PyAV's `VideoFrame`: the one place where colour, transparency and orientation are converted."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import cast

import av
import cv2
import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext
from av.sidedata.sidedata import Type as SideData
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from videonst.errors import InputError
from videonst.frame import ColourTags, Frame, Pixels


class FrameConverter:
    """Converts frames both ways. Keeps one filter graph for each, so every thread needs a converter of its own.

    Args:
        centred_chroma: what is decoded has its chroma between the columns, as JPEG does; else on every second one.
    """

    def __init__(self, *, centred_chroma: bool = False) -> None:
        self._site = "center" if centred_chroma else "left"
        self._from = _Conversion()
        self._to = _Conversion()

    def from_av(self, picture: VideoFrame, *, pts: int, time_base: Fraction) -> Frame:
        """The decoded picture as upright RGB, uint8, (height, width, 3), with alpha where its format has it. The colour
        tags are kept as found; HDR (`is_hdr`) is mapped to BT.709 and tagged so.

        Raises:
            InputError: a pixel format that swscale cannot convert.
        """
        tags = _tags(picture)
        with_alpha = has_alpha(picture.format)
        filters = [*_to_rgb(picture, tags, self._site), ("format", "pix_fmts=rgba" if with_alpha else "pix_fmts=rgb24")]
        try:
            samples = self._from.convert(picture, filters).to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            raise InputError(
                f"cannot convert {picture.format.name} pictures to RGB ({error}); convert the clip to yuv420p"
            ) from error
        upright = Orientation.of(picture).upright(np.ascontiguousarray(samples))
        return Frame(
            np.ascontiguousarray(upright[..., :3]),
            pts,
            time_base,
            picture.duration or 0,
            _SDR if is_hdr(picture) else tags,
            np.ascontiguousarray(upright[..., 3]) if with_alpha else None,
        )

    def to_av(self, frame: Frame, pixel_format: str) -> VideoFrame:
        """The frame with the tags of `written_tags` and its own times. Alpha is written where the format has it, and
        else laid over white."""
        target = VideoFormat(pixel_format)
        tags = written_tags(frame.colour, frame.height, pixel_format)
        if has_alpha(target):
            alpha = np.full(frame.pixels.shape[:2], 255, np.uint8) if frame.alpha is None else frame.alpha
            picture = VideoFrame.from_ndarray(np.dstack((frame.pixels, alpha)), format="rgba")
        else:
            picture = VideoFrame.from_ndarray(frame.over_white().pixels, format="rgb24")
        picture.pts = frame.pts
        if not (target.is_rgb or target.has_palette):
            scale = f"out_color_matrix={tags.matrix}:out_range={_range_name(tags)}:out_chroma_loc=left:{_SAMPLING}"
            filters = [("scale", scale), ("format", f"pix_fmts={pixel_format}")]
        else:
            filters = [_PALETTE if target.has_palette else ("format", f"pix_fmts={pixel_format}")]
        picture = self._to.convert(picture, filters)
        set_tags(picture, tags)
        picture.pts, picture.time_base, picture.duration = frame.pts, frame.time_base, frame.duration
        return picture


@dataclass(frozen=True)
class Orientation:
    """What makes a stored picture upright: its axes swapped, then the result mirrored.

    Attributes:
        swapped: rows become columns.
        mirrored: left and right change places.
        flipped: top and bottom change places.
        oblique: no quarter turn would do, so that nothing is done.
    """

    swapped: bool = False
    mirrored: bool = False
    flipped: bool = False
    oblique: bool = False

    @classmethod
    def of(cls, picture: VideoFrame) -> "Orientation":
        """From the display matrix of ISO/IEC 14496-12, 6.2.2: (x, y) is shown at (ax + cy, bx + dy)."""
        matrix = cast("bytes | None", picture.side_data.get("DISPLAYMATRIX"))
        if matrix is None:
            return cls()
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
        if abs(b) + abs(c) <= _LEAST_TILT * (abs(a) + abs(d)):
            return cls(mirrored=a < 0, flipped=d < 0)
        if abs(a) + abs(d) <= _LEAST_TILT * (abs(b) + abs(c)):
            return cls(swapped=True, mirrored=c < 0, flipped=b < 0)
        return cls(oblique=True)

    def upright(self, pixels: Pixels) -> Pixels:
        """The turned pixels, uint8, (height, width, 3), contiguous; `pixels` itself where nothing is to be done."""
        if self.swapped:
            pixels = cast(Pixels, cv2.transpose(pixels))
        if self.mirrored or self.flipped:
            pixels = cast(Pixels, cv2.flip(pixels, _FLIP_CODE[self.mirrored, self.flipped]))
        return pixels


_FLIP_CODE = {(True, False): 1, (False, True): 0, (True, True): -1}
"""OpenCV's names for (mirrored, flipped)."""

_LEAST_TILT = 0.01
"""Below this tangent (0.6°) a matrix is a rounded quarter turn."""


class _Conversion:
    """A chain of filters, kept until another is asked for: a swscale context takes time and some 15 MB."""

    def __init__(self) -> None:
        self._form: tuple[object, ...] | None = None

    def convert(self, picture: VideoFrame, filters: list[tuple[str, str]]) -> VideoFrame:
        """One picture in, one out."""
        form = (picture.width, picture.height, picture.format.name, *filters)
        if form != self._form:
            self._graph = Graph()
            source = self._graph.add_buffer(
                width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 1000)
            )
            for name, options in filters:
                source = self._with_palette(source) if name == "palette" else self._linked(source, name, options)
            self._linked(source, "buffersink", "")
            self._graph.configure()
            self._form = form
        self._graph.push(picture)
        return cast(VideoFrame, self._graph.pull())

    def _linked(self, source: FilterContext, name: str, options: str) -> FilterContext:
        following = self._graph.add(name, options or None)
        source.link_to(following)
        return following

    def _with_palette(self, source: FilterContext) -> FilterContext:
        """Every picture with the 255 colours that suit it best, and one that is transparent."""
        copies = self._linked(source, "split", "")
        palette, painted = self._graph.add("palettegen", "stats_mode=single"), self._graph.add("paletteuse", "new=1")
        copies.link_to(painted, 0, 0)
        copies.link_to(palette, 1, 0)
        palette.link_to(painted, 0, 1)
        return painted


_PALETTE = ("palette", "")


def has_alpha(pixel_format: VideoFormat) -> bool:
    """Whether the format has room for transparency."""
    return pixel_format.has_palette or any(component.is_alpha for component in pixel_format.components)


def is_hdr(picture: VideoFrame) -> bool:
    """High dynamic range: SMPTE ST 2084 (PQ) or ARIB STD-B67 (HLG)."""
    return picture.color_trc in HDR_TRANSFERS


HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Transfer characteristics of H.273."""


def written_tags(colour: ColourTags, height: int, pixel_format: str) -> ColourTags:
    """`colour` with nothing left open that the format needs. RGB has no matrix and full range. In YUV an unspecified
    range is limited, an unspecified matrix (or one that is no YUV matrix) is BT.709 from 720 lines up and BT.601 below,
    as players assume."""
    target = VideoFormat(pixel_format)
    if target.is_rgb or target.has_palette:
        return replace(colour, matrix=_RGB, full_range=True)
    matrix = _SWSCALE_MATRIX.get(colour.matrix, _BT709 if height >= _HD_HEIGHT else _BT601)
    return replace(colour, matrix=matrix, full_range=bool(colour.full_range))


def set_tags(target: object, tags: ColourTags) -> None:
    """Writes the tags on a PyAV frame or encoder context, which name them alike."""
    for name, value in (
        ("colorspace", tags.matrix),
        ("color_primaries", tags.primaries),
        ("color_trc", tags.transfer),
        ("color_range", ColorRange.JPEG if tags.full_range else ColorRange.MPEG),
    ):
        setattr(target, name, value)


def _to_rgb(picture: VideoFrame, tags: ColourTags, site: str) -> list[tuple[str, str]]:
    """Filters to full-range RGB. swscale maps tones by the mastering peak of the clip; PQ that does not state one would
    be taken as mastered at 10,000 cd/m² and come out dark, so it goes by way of HLG, whose peak is 1,000."""
    assumed = written_tags(tags, picture.height, picture.format.name)
    stored = f"in_color_matrix={assumed.matrix}:in_range={_range_name(assumed)}:in_chroma_loc={site}"
    scale = f"{stored}:out_range=full:{_SAMPLING}"
    if not is_hdr(picture):
        return [("scale", scale)]
    primaries = _BT2020 if tags.primaries == _UNSPECIFIED else tags.primaries
    scale = f"{scale}:in_primaries={primaries}"
    to_sdr = f"intent=perceptual:out_primaries={_SDR.primaries}:out_transfer={_SDR.transfer}"
    if picture.color_trc == _PQ and SideData.MASTERING_DISPLAY_METADATA not in picture.side_data:
        return [
            ("scale", f"{scale}:intent=relative_colorimetric:out_primaries={primaries}:out_transfer={_HLG}"),
            ("format", "pix_fmts=gbrap16le" if has_alpha(picture.format) else "pix_fmts=gbrp16le"),
            ("scale", to_sdr),
        ]
    return [("scale", f"{scale}:{to_sdr}")]


_UNSPECIFIED = 2
_RGB, _BT709, _BT601, _BT2020 = 0, 1, 6, 9
_PQ, _HLG = HDR_TRANSFERS
_SDR = ColourTags(_BT709, _BT709, _BT709)

_SWSCALE_MATRIX = {1: _BT709, 4: 4, 5: 5, 6: _BT601, 7: 7, 9: _BT2020, 10: _BT2020}
"""The H.273 matrices that swscale knows. BT.2020 constant luminance (10) it treats as non-constant."""

_HD_HEIGHT = 720

_FULL_RANGE: dict[int, bool] = {ColorRange.MPEG: False, ColorRange.JPEG: True}

_SAMPLING = "flags=bilinear+accurate_rnd+full_chroma_inp+full_chroma_int"
"""Without the last three a 4:2:0 round trip darkens by more than one level (mean error 1.9 instead of 0.4). Chroma is
sited left, as MPEG-2, H.264 and HEVC have it; swscale would site it in the centre, and every pass shift the colours by
half a pixel."""


def _tags(picture: VideoFrame) -> ColourTags:
    if picture.format.is_rgb:  # RGB has no matrix, and its full range says nothing about the YUV to be written
        return ColourTags(primaries=picture.color_primaries, transfer=picture.color_trc)
    full_range = _FULL_RANGE.get(picture.color_range)
    if full_range is None and picture.format.name.startswith("yuvj"):
        full_range = True
    return ColourTags(picture.colorspace, picture.color_primaries, picture.color_trc, full_range)


def _range_name(tags: ColourTags) -> str:
    return "full" if tags.full_range else "limited"
