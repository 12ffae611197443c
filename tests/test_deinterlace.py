"""Interlaced clips: two fields of different moments become one progressive picture, at the same time."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.codec.context import Flags
from av.filter import Graph
from clips import VFR, copy, make_clip, video_timing, yuv_frame

from videonst.sources import open_source
from videonst.trim import Trim

STEP = 2
"""Pixels by which the bar moves from one field to the next."""


def bar(field: int) -> np.ndarray:
    """A bright bar on grey, as the field of this number sees it, RGB (48, 96, 3)."""
    picture = np.full((48, 96, 3), 60, np.uint8)
    left = 4 + field * STEP
    picture[:, left : left + 24] = 200
    return picture


def interlaced_clip(path: Path, *, top_first: bool = True, flagged: bool = True, pts=VFR, codec="libx264") -> Path:
    with av.open(str(path), "w", options={"movie_timescale": "1000"} if path.suffix == ".mp4" else {}) as output:
        if codec == "libx264":
            options = {"crf": "4", "preset": "veryfast"} | ({"flags": "+ildct"} if flagged else {})
        else:
            options = {"flags": "+ildct+ilme", "q": "2", "b": "4000000"}
        stream = output.add_stream(codec, rate=25, options=options, width=96, height=48, pix_fmt="yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000) if codec == "libx264" else Fraction(1, 25)
        stream.codec_context.flags |= Flags.frame_duration
        for index, (start, end) in enumerate(zip(pts, [*pts[1:], pts[-1] + 40], strict=True)):
            woven = bar(2 * index)
            woven[int(top_first) :: 2] = bar(2 * index + 1)[int(top_first) :: 2]
            frame = marked(yuv_frame(woven, "yuv420p", 6, False), "tff" if top_first else "bff")
            frame.pts, frame.time_base, frame.duration = start, stream.codec_context.time_base, end - start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def marked(picture: av.VideoFrame, order: str) -> av.VideoFrame:
    """With the flags of its fields, which PyAV cannot set."""
    graph = Graph()
    source = graph.add_buffer(width=96, height=48, format=picture.format, time_base=Fraction(1, 1000))
    graph.link_nodes(source, graph.add("setfield", order), graph.add("buffersink")).configure()
    graph.push(picture)
    return graph.pull()


def combing(picture: np.ndarray) -> float:
    """How much neighbouring lines differ, in levels, mean over all."""
    return float(np.abs(np.diff(picture.astype(int), axis=0)).mean())


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_fields_become_pictures_at_the_same_times(tmp_path, suffix, top_first, caplog):
    path = interlaced_clip(tmp_path / f"clip{suffix}", top_first=top_first)
    with open_source(path) as source:
        frames = list(source)
    assert [(f.time, f.duration * f.time_base) for f in frames] == [tuple(t) for t in video_timing(path)]
    assert caplog.text.count("is interlaced; it is deinterlaced") == 1
    for index, frame in enumerate(frames):
        assert combing(frame.pixels) < 0.15 * combing(woven_as_decoded(path, index))
        if 0 < index < len(frames) - 1:  # at the ends the filter knows only one side
            first_field = int(not top_first)
            assert np.abs(frame.pixels.astype(int) - bar(2 * index))[first_field::2].mean() < 3
            assert np.abs(frame.pixels.astype(int) - bar(2 * index)).mean() < 4


def timing(path: Path) -> list[tuple[Fraction, Fraction]]:
    with open_source(path) as source:
        return [(frame.time, frame.duration * frame.time_base) for frame in source]


def woven_as_decoded(path: Path, index: int) -> np.ndarray:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][index]


def test_a_conversion_is_progressive_and_exact_in_time(tmp_path):
    path = interlaced_clip(tmp_path / "clip.mp4")
    copied = copy(path, tmp_path / "copy.mp4")
    assert timing(copied) == timing(path) == [(t.start, t.duration) for t in video_timing(path)]
    with av.open(str(copied)) as container:
        assert not any(frame.interlaced_frame for frame in container.decode(video=0))


def test_mpeg2_as_broadcast(tmp_path, caplog):
    path = interlaced_clip(tmp_path / "clip.ts", codec="mpeg2video", pts=range(12))
    with open_source(path) as source:
        frames = list(source)
    assert "is interlaced" in caplog.text
    assert len(frames) == 12
    assert [f.time for f in frames] == [t for t, _ in video_timing(path)]


def test_a_part(tmp_path):
    path = interlaced_clip(tmp_path / "clip.mp4")
    copied = copy(path, tmp_path / "copy.mp4")
    cut = copy(path, tmp_path / "cut.mp4", trim=Trim.parse(start="0.3", end="0.7"))
    whole = [t for t in video_timing(copied) if Fraction(3, 10) <= t.start < Fraction(7, 10)]
    assert [t.start + Fraction(3, 10) for t in video_timing(cut)] == [t.start for t in whole]


def test_progressive_clips_are_left_alone(tmp_path, caplog):
    with open_source(interlaced_clip(tmp_path / "clip.mp4", flagged=False)) as source:
        frames = list(source)
    assert combing(frames[3].pixels) > 5
    with open_source(make_clip(tmp_path / "plain.mp4")) as source:
        list(source)
    assert not caplog.records
