"""The way through files alone: clips of every kind, with known pictures at known times, through engine "none".

Codec and pixel format and container x timing x orientation x sound. Pictures are compared with the arrays that the
clip was made of, times and sound with the packets of the clip as PyAV reads them.
"""

import itertools
import os
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from clips import VFR, colour_tags, display_matrix, make_clip, smooth_picture, stream_packets, video_timing

import videonst
from videonst.sources import open_source

SIZE = (64, 48)


class Kind(NamedTuple):
    """How the pictures of a clip are stored."""

    suffix: str
    codec: str
    pixel_format: str
    matrix: int = 1
    full_range: bool = False
    sound: str = "aac"


KINDS = [
    Kind(".mp4", "libx264", "yuv420p"),
    Kind(".mp4", "libx264", "yuv420p10le", matrix=9),
    Kind(".mkv", "libx264", "yuv444p", matrix=6),
    Kind(".mov", "libx264", "yuv422p", full_range=True),
    Kind(".mp4", "libx265", "yuv420p10le"),
    Kind(".webm", "libvpx-vp9", "yuv420p", sound="libopus"),
    Kind(".mp4", "libsvtav1", "yuv420p"),
    Kind(".mov", "prores_ks", "yuv422p10le"),
    Kind(".mkv", "ffv1", "bgr0", sound="flac"),
    Kind(".mkv", "mpeg4", "yuv420p", matrix=6, sound="libmp3lame"),
    Kind(".ts", "libx264", "yuv420p", matrix=6),
    Kind(".mov", "mjpeg", "yuvj420p", matrix=5, full_range=True, sound="pcm_s16le"),
]


class Timing(NamedTuple):
    """Presentation times of the frames as they are encoded."""

    pts: tuple[int, ...]
    time_base: Fraction = Fraction(1, 1000)
    last: int = 40
    b_frames: int = 0


TIMINGS = {
    "constant": Timing(tuple(range(0, 320, 40))),
    "b-frames": Timing(tuple(range(0, 320, 40)), b_frames=2),
    "variable": Timing(VFR[:8], last=70, b_frames=2),
    "late": Timing(tuple(t + 4321 for t in VFR[:8]), last=70),  # in MP4 an empty edit
    "negative": Timing(tuple(range(-80, 240, 40)), b_frames=2),  # in MP4 an edit list that skips two pictures
    "ntsc": Timing(tuple(range(0, 8 * 1001, 1001)), Fraction(1, 30000), 1001),
}

ORIENTATIONS = {
    "upright": (None, lambda a: a),
    "phone": (display_matrix(0, 1, -1, 0), lambda a: np.rot90(a, -1)),
    "mirrored": (display_matrix(-1, 0, 0, 1), np.fliplr),
}
COMBINATIONS = [("upright", 0), ("phone", 1), ("mirrored", 2), ("upright", 2)]
"""Orientation and number of audio streams."""

TARGETS = (".mp4", ".mov", ".mkv", ".webm")
ADTS_HEADER = 7
"""Bytes before each AAC packet in MPEG-TS, of which other containers have no need."""


def cases() -> list[tuple[Kind, str, str, int, str]]:
    """All kinds, timings and combinations; the targets take turns."""
    product = itertools.product(enumerate(KINDS), enumerate(TIMINGS), enumerate(COMBINATIONS))
    return [
        (kind, timing, orientation, sounds, TARGETS[(i + j + k) % len(TARGETS)])
        for (i, kind), (j, timing), (k, (orientation, sounds)) in product
    ]


def name(case: tuple[Kind, str, str, int, str]) -> str:
    kind, timing, orientation, sounds, target = case
    return f"{kind.codec}-{kind.pixel_format}-{kind.suffix[1:]}-{timing}-{orientation}-{sounds}-to{target}"


@pytest.mark.parametrize("case", cases(), ids=name)
def test_everything_arrives(tmp_path: Path, case, caplog):
    kind, timing_name, orientation, sounds, target = case
    timing = TIMINGS[timing_name]
    matrix, shown = ORIENTATIONS[orientation]
    path = make_clip(
        tmp_path / f"clip{kind.suffix}", pts=timing.pts, time_base=timing.time_base, last_duration=timing.last,
        size=SIZE, codec=kind.codec, pixel_format=kind.pixel_format, matrix=kind.matrix, full_range=kind.full_range,
        b_frames=timing.b_frames, audio=[kind.sound] * sounds, display_matrix=matrix,
    )  # fmt: skip
    out = tmp_path / f"out{target}"
    videonst.convert(path, out, engine="none", crf=4)
    assert "damaged" not in caplog.text

    before, after = video_timing(path), video_timing(out)
    skipped = len(timing.pts) - len(before)
    exact = target in (".mp4", ".mov")
    tolerance = 0 if exact else Fraction(1, 1000)
    shift = 0 if exact else after[0].start - before[0].start  # Matroska has no time before 0: all move together
    assert abs(shift) <= tolerance - (earliest(path) if sounds else 0)
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        assert abs(new.start - shift - old.start) <= tolerance

    with open_source(path) as source:
        expected = [(frame.time, frame.duration * frame.time_base) for frame in source]
    with open_source(out) as source:
        frames = list(source)
    assert len(frames) == len(expected)
    has_matrix = has_display_matrix(path)
    for index, (frame, (time, duration)) in enumerate(zip(frames, expected, strict=True)):
        assert abs(frame.time - shift - time) <= tolerance
        assert abs(frame.duration * frame.time_base - duration) <= tolerance
        picture = smooth_picture(*SIZE, seed=index + skipped)
        picture = shown(picture) if has_matrix else picture
        assert frame.pixels.shape == picture.shape
        assert np.abs(frame.pixels.astype(int) - picture).mean() < 2
    assert not has_display_matrix(out)
    is_rgb = kind.pixel_format == "bgr0"
    assert colour_tags(out) == ((6, 1) if is_rgb else (kind.matrix, 1 + kind.full_range))

    assert sound_streams(out) == sounds
    sound_before, sound_after = (stream_packets(clip) if sounds else [] for clip in (path, out))
    if not encodes_sound_anew(kind, target):
        for old, new in zip(sound_before, sound_after, strict=True):
            header = ADTS_HEADER if kind.suffix == ".ts" else 0
            assert [data for *_, data in new] == [data[header:] for *_, data in old]
            assert all(abs(a[0] - shift - b[0]) <= 2 * tolerance for a, b in zip(new, old, strict=True))
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, out.name])


def encodes_sound_anew(kind: Kind, target: str) -> bool:
    return (target == ".webm" and kind.sound != "libopus") or (target == ".mov" and kind.sound in ("libopus", "flac"))


def earliest(path: Path) -> Fraction:
    """When the first packet of sound is played, at most 0: AAC begins before the pictures."""
    return min(Fraction(0), *(packets[0][0] for packets in stream_packets(path)), Fraction(0))


def sound_streams(path: Path) -> int:
    with av.open(str(path)) as container:
        return len(container.streams.audio)


def has_display_matrix(path: Path) -> bool:
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).side_data.get("DISPLAYMATRIX") is not None
