"""Small clips made with PyAV, and what a clip holds read back with PyAV alone: the oracle for sources and sinks."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.codec.context import Flags

from videonst.sinks import open_sink
from videonst.sources import open_source
from videonst.trim import WHOLE, Trim

UNSPECIFIED = 2
VFR = (0, 40, 80, 90, 200, 201, 300, 340, 420, 460, 700, 710, 720, 800)
"""Irregular presentation times, in 1/1000 s."""


class Timing(NamedTuple):
    """Seconds, exact."""

    start: Fraction
    duration: Fraction


def smooth_picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Colours that change slowly enough for 4:2:0 and lie within every range, RGB uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(30, 226, (2, 2, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def make_clip(
    path: Path,
    *,
    pts: Sequence[int] = range(0, 400, 40),
    time_base: Fraction = Fraction(1, 1000),
    last_duration: int = 40,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    matrix: int = UNSPECIFIED,
    full_range: bool | None = None,
    b_frames: int = 2,
    audio: Sequence[str] = (),
    picture: np.ndarray | None = None,
    display_matrix: Sequence[int] | None = None,
    aspect_ratio: Fraction = Fraction(0),
    keyframe_interval: int = 250,
) -> Path:
    """Writes a clip. The YUV planes are computed here from the definition of the matrix, not by swscale."""
    width, height = size
    exact_start = {"movie_timescale": str(time_base.denominator)} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=exact_start) as output:
        options = _encoder_options(codec, b_frames, keyframe_interval)
        video = output.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        video.set_display_matrix(display_matrix)
        context = video.codec_context
        context.sample_aspect_ratio = aspect_ratio
        context.time_base = time_base
        context.flags |= Flags.frame_duration  # or the encoder makes durations up
        context.colorspace = matrix
        context.color_range = {None: 0, False: 1, True: 2}[full_range]
        sounds = [output.add_stream(name, rate=48000, layout="mono") for name in audio]
        ends = [*pts[1:], pts[-1] + last_duration]
        for index, (start, end) in enumerate(zip(pts, ends, strict=True)):
            rgb = smooth_picture(width, height, seed=index) if picture is None else picture
            frame = yuv_frame(rgb, pixel_format, matrix, bool(full_range))
            frame.colorspace, frame.color_range = context.colorspace, context.color_range
            frame.pts, frame.time_base, frame.duration = start, time_base, end - start
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for sound in sounds:
            _write_sine(output, sound, seconds=float((ends[-1] - pts[0]) * time_base))
    return path


def _encoder_options(codec: str, b_frames: int, keyframe_interval: int) -> dict[str, str]:
    """Close to lossless, and quick."""
    frames = {"bf": str(b_frames), "g": str(keyframe_interval)}
    return {
        "libx264": {"crf": "4", "preset": "veryfast", **frames},
        "libx265": {"x265-params": f"log-level=error:crf=4:bframes={b_frames}", "preset": "ultrafast"},
        "libvpx-vp9": {"crf": "4", "b": "0", "deadline": "realtime", "cpu-used": "8"},
        "libsvtav1": {"crf": "5", "preset": "12"},
        "mpeg4": {"flags": "+qscale", "global_quality": "118", **frames},
        "mpeg2video": {"flags": "+qscale", "global_quality": "118", **frames},
        "mjpeg": {"flags": "+qscale", "global_quality": "118"},
    }.get(codec, {})


def copy(path: Path, target: Path, *, limit: int | None = None, shrink: int = 1, trim: Trim = WHOLE, **options) -> Path:
    """Through the sources and sinks with untouched pixels (every `shrink`-th one)."""
    with open_source(path, trim) as source, open_sink(target, source.info, **options) as sink:
        for index, frame in enumerate(source):
            if index == limit:
                break
            sink.write(frame.with_pixels(np.ascontiguousarray(frame.pixels[::shrink, ::shrink])))
    return target


def video_timing(path: Path) -> list[Timing]:
    """When each frame is shown: from the packets' presentation times alone; the last lasts to the track's end."""
    with av.open(str(path)) as container:
        stream = max(container.streams.video, key=lambda s: s.width * s.height)
        packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
        starts = sorted(packet.pts * stream.time_base for packet in packets)
        last = max(packets, key=lambda packet: packet.pts)
        ends = [*starts[1:], (last.pts + last.duration) * stream.time_base]
    return [Timing(start, end - start) for start, end in zip(starts, ends, strict=True)]


def audio_packets(path: Path) -> list[tuple[Fraction, Fraction, bytes]]:
    """(time, duration, bytes) of each packet of the first audio stream."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [
            (p.pts * stream.time_base, p.duration * stream.time_base, bytes(p))
            for p in container.demux(stream)
            if p.size
        ]


def stream_packets(path: Path) -> list[list[tuple[Fraction, Fraction, bytes]]]:
    """(time, duration, bytes) of each packet of each audio and subtitle stream."""
    with av.open(str(path)) as container:
        packets = {stream.index: [] for stream in container.streams if stream.type in ("audio", "subtitle")}
        for p in container.demux():
            if p.size and p.stream_index in packets:
                packets[p.stream_index].append((p.pts * p.time_base, p.duration * p.time_base, bytes(p)))
    return list(packets.values())


def colour_tags(path: Path) -> tuple[int, int]:
    """(matrix, range) as written in the file, H.273 and FFmpeg numbers."""
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return context.colorspace, context.color_range


def display_matrix(a: int, b: int, c: int, d: int) -> list[int]:
    """ISO/IEC 14496-12: a stored (x, y) is shown at (ax + cy, bx + dy)."""
    return [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]


def geometry(path: Path) -> tuple[int, int, Fraction, bool]:
    """(width, height, sample aspect ratio, whether to be turned) of the first frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        return frame.width, frame.height, stream.sample_aspect_ratio, frame.side_data.get("DISPLAYMATRIX") is not None


def yuv_planes(path: Path) -> list[np.ndarray]:
    """The planes of the first frame, as stored."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        return [
            np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            for plane in frame.planes
        ]


def yuv_from_rgb(rgb: np.ndarray, matrix: int, full_range: bool, bits: int = 8) -> np.ndarray:
    """ITU-T H.273 equations, float (height, width, 3). RGB in 0 to 255, uint8 or float."""
    kr, kb = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}.get(matrix, (0.299, 0.114))
    r, g, b = np.moveaxis(rgb.astype(np.float64) / 255, -1, 0)
    luma = kr * r + (1 - kr - kb) * g + kb * b
    blue, red = (b - luma) / (2 - 2 * kb), (r - luma) / (2 - 2 * kr)
    unit, top = 2 ** (bits - 8), 2**bits - 1
    scale_luma, offset, scale_chroma = (top, 0, top) if full_range else (219 * unit, 16 * unit, 224 * unit)
    return np.stack([offset + scale_luma * luma, 128 * unit + scale_chroma * blue, 128 * unit + scale_chroma * red], -1)


def subsample(chroma: np.ndarray, *, rows: bool = True) -> np.ndarray:
    """4:2:0, or 4:2:2 without `rows`, with chroma sited left, as H.264 assumes: on every second column, between two
    rows."""
    wide = np.pad(chroma, ((0, 0), (1, 1)), mode="edge")
    columns = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:])[:, ::2] / 4
    return (columns[::2] + columns[1::2]) / 2 if rows else columns


def yuv_frame(
    rgb: np.ndarray, pixel_format: str, matrix: int, full_range: bool, alpha: np.ndarray | None = None
) -> av.VideoFrame:
    """A picture whose planes are computed from the definition of the matrix, not by swscale."""
    height, width = rgb.shape[:2]
    if pixel_format == "bgr0":
        return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="bgr0")
    if pixel_format in ("bgra", "rgba"):
        return av.VideoFrame.from_ndarray(np.dstack((rgb, alpha)), format="rgba").reformat(format=pixel_format)
    frame = av.VideoFrame(width, height, pixel_format)
    bits = frame.format.components[0].bits
    yuv = yuv_from_rgb(rgb, matrix, full_range, bits)
    if alpha is not None:
        yuv = np.dstack((yuv, np.rint(alpha * ((2**bits - 1) / 255))))
    for index, plane in enumerate(frame.planes):
        values, rows = yuv[..., index], plane.height < height
        if (plane.width, plane.height) != (width, height):
            values = subsample(values, rows=rows)
        kind = np.uint8 if bits == 8 else np.uint16
        padded = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
        padded[:, : values.shape[1]] = np.rint(values).clip(0, 2**bits - 1)
        plane.update(padded.tobytes())
    return frame


def _write_sine(output: av.container.OutputContainer, stream: av.AudioStream, *, seconds: float) -> None:
    samples = (np.sin(np.arange(int(seconds * 48000)) * 0.06) * 8000).astype(np.int16)
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
