"""Between `Frame` and PyAV's `VideoFrame`: the one place where colour matrix, range and orientation are applied."""

from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import cv2
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from videonst.errors import InputError
from videonst.frame import ColourTags, Frame, Pixels


class FrameConverter:
    """Converts frames both ways. Keeps swscale contexts, so every thread needs a converter of its own."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._to_yuv: Graph | None = None
        self._layout: tuple[int, int, int, bool, str] | None = None

    def from_av(self, picture: VideoFrame, *, pts: int, time_base: Fraction) -> Frame:
        """The decoded picture as upright RGB, uint8, (height, width, 3). The colour tags are kept as found.

        Raises:
            InputError: a pixel format that swscale cannot convert.
        """
        colour = _tags(picture)
        if not picture.format.is_rgb:
            assumed = written_tags(colour, picture.height)
            picture.colorspace = assumed.matrix
            picture.color_range = _range(assumed)
        try:
            rgb = self._reformatter.reformat(
                picture, format="rgb24", dst_color_range=ColorRange.JPEG, interpolation=_EXACT
            )
        except av.FFmpegError as error:
            raise InputError(
                f"cannot convert {picture.format.name} pictures to RGB ({error.strerror}); convert the clip to yuv420p"
            ) from error
        pixels = Orientation.of(picture).upright(np.ascontiguousarray(rgb.to_ndarray()))
        return Frame(pixels, pts, time_base, picture.duration or 0, colour)

    def to_av(self, frame: Frame, pixel_format: str) -> VideoFrame:
        """The frame as YUV in the matrix and range of `written_tags`, tagged so, with its own times."""
        tags = written_tags(frame.colour, frame.height)
        layout = (frame.width, frame.height, tags.matrix, bool(tags.full_range), pixel_format)
        if self._to_yuv is None or layout != self._layout:
            self._layout, self._to_yuv = layout, _yuv_graph(*layout)
        self._to_yuv.push(VideoFrame.from_ndarray(frame.pixels, format="rgb24"))
        picture = cast(VideoFrame, self._to_yuv.pull())
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


def written_tags(colour: ColourTags, height: int) -> ColourTags:
    """`colour` with nothing left open that YUV needs: an unspecified range is limited, an unspecified matrix
    (or one that is no YUV matrix) is BT.709 from 720 lines up and BT.601 below, as players assume."""
    matrix = _SWSCALE_MATRIX.get(colour.matrix, _BT709 if height >= _HD_HEIGHT else _BT601)
    return ColourTags(matrix, colour.primaries, colour.transfer, bool(colour.full_range))


def set_tags(target: object, tags: ColourTags) -> None:
    """Writes the tags on a PyAV frame or encoder context, which name them alike."""
    for name, value in (
        ("colorspace", tags.matrix),
        ("color_primaries", tags.primaries),
        ("color_trc", tags.transfer),
        ("color_range", _range(tags)),
    ):
        setattr(target, name, value)


_BT709, _BT601, _BT2020 = 1, 6, 9
_SWSCALE_MATRIX = {1: _BT709, 4: 4, 5: 5, 6: _BT601, 7: 7, 9: _BT2020, 10: _BT2020}
"""The H.273 matrices that swscale knows. BT.2020 constant luminance (10) it treats as non-constant."""

_HD_HEIGHT = 720

_FULL_RANGE: dict[int, bool] = {ColorRange.MPEG: False, ColorRange.JPEG: True}

_EXACT = (
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
)
"""Without the last three a 4:2:0 round trip darkens by more than one level (mean error 1.9 instead of 0.4)."""


def _yuv_graph(width: int, height: int, matrix: int, full_range: bool, pixel_format: str) -> Graph:
    """RGB to YUV with chroma sited left, where H.264 decoders expect it: `VideoReformatter` cannot say, sites it in the
    centre, and every pass through a file would shift the colours by half a pixel."""
    graph = Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1, 1000))
    scale = graph.add(
        "scale",
        f"out_color_matrix={matrix}:out_range={'full' if full_range else 'limited'}:out_chroma_loc=left:"
        "flags=bilinear+accurate_rnd+full_chroma_inp+full_chroma_int",
    )
    convert = graph.add("format", f"pix_fmts={pixel_format}")
    graph.link_nodes(source, scale, convert, graph.add("buffersink")).configure()
    return graph


def _tags(picture: VideoFrame) -> ColourTags:
    if picture.format.is_rgb:  # RGB has no matrix, and its full range says nothing about the YUV to be written
        return ColourTags(primaries=picture.color_primaries, transfer=picture.color_trc)
    full_range = _FULL_RANGE.get(picture.color_range)
    if full_range is None and picture.format.name.startswith("yuvj"):
        full_range = True
    return ColourTags(picture.colorspace, picture.color_primaries, picture.color_trc, full_range)


def _range(tags: ColourTags) -> ColorRange:
    return ColorRange.JPEG if tags.full_range else ColorRange.MPEG
