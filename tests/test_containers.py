"""Containers and animated pictures, in and out."""

import itertools
import logging
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import copy, make_clip, smooth_picture, video_timing

from videonst.api import convert
from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sinks import open_sink
from videonst.sources import open_source
from videonst.trim import Trim

TIMES = (0, 100, 150, 400, 500)
"""1/1000 s; the last picture lasts as long as the one before."""


def picture(index: int) -> np.ndarray:
    """RGBA, a stripe on the left see-through, wider from one to the next, uint8 (48, 64, 4)."""
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:, : 10 + 5 * index] = 0
    return np.dstack((smooth_picture(64, 48, seed=index), alpha))


def animation(path: Path, *, opaque: bool = False) -> Path:
    """Animated WebP or PNG."""
    webp = path.suffix == ".webp"
    with av.open(str(path), "w", format="webp" if webp else "apng") as output:
        options = {"lossless": "1"} if webp else {}
        stream = output.add_stream("libwebp_anim" if webp else "apng", rate=10, options=options, width=64, height=48)
        stream.pix_fmt = "bgra" if webp else "rgba"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(TIMES):
            samples = picture(index)
            if opaque:
                samples[..., 3] = 255
            frame = av.VideoFrame.from_ndarray(samples, format="rgba").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def frames_of(path: Path, trim: Trim | None = None) -> list[Frame]:
    with open_source(path, trim or Trim()) as source:
        return list(source)


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.apng"])
def test_animated_pictures_are_read_whole(tmp_path, name):
    frames = frames_of(animation(tmp_path / name))
    assert [frame.time for frame in frames] == [Fraction(time, 1000) for time in TIMES]
    ends = [frame.time + frame.duration * frame.time_base for frame in frames]
    assert ends[:-1] == [frame.time for frame in frames[1:]]
    for index, frame in enumerate(frames):
        expected = picture(index)
        np.testing.assert_array_equal(frame.alpha, expected[..., 3])
        seen = expected[..., 3] > 0
        assert np.abs(frame.pixels.astype(int) - expected[..., :3])[seen].max() <= 1


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
def test_animated_pictures_become_videos(tmp_path, name):
    path = animation(tmp_path / name, opaque=True)
    convert(path, tmp_path / "out.mp4", engine="none")
    assert [t.start for t in video_timing(tmp_path / "out.mp4")] == [Fraction(time, 1000) for time in TIMES]
    convert(animation(tmp_path / f"see-through-{name}"), tmp_path / "out.webm", engine="none")
    after = frames_of(tmp_path / "out.webm")
    assert len(after) == 5
    assert np.abs(after[2].alpha.astype(int) - picture(2)[..., 3]).mean() < 3


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
def test_a_part_of_an_animation(tmp_path, name):
    frames = frames_of(animation(tmp_path / name), Trim.parse(start="0.12", end="0.45"))
    assert [(frame.time, frame.duration * frame.time_base) for frame in frames] == [
        (Fraction(0), Fraction(250, 1000)),
        (Fraction(250, 1000), Fraction(50, 1000)),
    ]
    np.testing.assert_array_equal(frames[0].alpha, picture(2)[..., 3])
    with pytest.raises(InputError, match=r"in the part to take|before the start"):
        open_source(tmp_path / name, Trim.parse(start=7))


def test_a_damaged_animation_is_one_clear_line(tmp_path):
    path = animation(tmp_path / "a.webp")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="is an animated WebP that cannot be read"):
        open_source(path)


def test_still_pictures_are_no_animations(tmp_path):
    for suffix in ("png", "webp"):
        cv2.imwrite(str(tmp_path / f"still.{suffix}"), picture(0))
        with open_source(tmp_path / f"still.{suffix}") as source:
            assert source.info.is_still


def test_gif_out_and_in(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", pts=[time + 4321 for time in TIMES], last_duration=100)
    written = copy(path, tmp_path / "out.gif")
    before, after = frames_of(path), frames_of(written)
    times = [Fraction(time, 1000) for time in TIMES]
    assert [frame.time for frame in after] == times  # a GIF begins at 0
    assert after[-1].duration * after[-1].time_base == Fraction(1, 10)
    for original, got in zip(before, after, strict=True):
        assert np.abs(got.pixels.astype(int) - original.pixels).mean() < 2
        assert not got.is_transparent
    again = copy(written, tmp_path / "again.mp4")
    assert [t.start for t in video_timing(again)] == times


def test_gif_times_are_rounded_without_drift(tmp_path):
    path = make_clip(
        tmp_path / "clip.mp4", pts=range(0, 100 * 1001, 1001), time_base=Fraction(1, 30000), last_duration=1001
    )
    after = frames_of(copy(path, tmp_path / "out.gif"))
    assert len(after) == 100
    for index, frame in enumerate(after):
        assert abs(frame.time - Fraction(1001 * index, 30000)) <= Fraction(5, 1000)


def test_gif_leaves_out_what_players_would_not_show_in_time(tmp_path, caplog):
    path = make_clip(tmp_path / "clip.mp4", pts=range(0, 200, 10), last_duration=10)
    after = frames_of(copy(path, tmp_path / "out.gif"))
    assert [frame.time for frame in after] == [Fraction(time, 1000) for time in range(0, 200, 20)]
    assert caplog.text.count("out.gif holds 50 pictures a second at most") == 1


def test_gif_keeps_what_is_transparent(tmp_path):
    with open_sink(tmp_path / "out.gif") as sink:
        for index in range(5):
            samples = picture(index)
            sink.write(
                Frame(np.ascontiguousarray(samples[..., :3]), index * 40, duration=40, alpha=samples[..., 3].copy())
            )
    is_read, read = cv2.imreadanimation(str(tmp_path / "out.gif"))  # another decoder than FFmpeg's
    assert is_read
    for index, (shown, frame) in enumerate(zip(read.frames, frames_of(tmp_path / "out.gif"), strict=True)):
        expected = picture(index)
        np.testing.assert_array_equal(shown[..., 3], expected[..., 3])
        np.testing.assert_array_equal(frame.alpha, expected[..., 3])
        seen = expected[..., 3] > 0
        assert np.abs(frame.pixels.astype(int) - expected[..., :3])[seen].mean() < 2


def test_gif_holds_no_sound(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", audio=["aac"])
    with open_source(path) as source, pytest.raises(InputError, match=r"\.gif cannot hold aac \(audio\).*--drop audio"):
        open_sink(tmp_path / "out.gif", source.info)
    assert len(frames_of(copy(path, tmp_path / "out.gif", drop=["audio"]))) == 10


@pytest.mark.parametrize("codec", ["mpeg4", "libx264", "mjpeg"])
@pytest.mark.parametrize("target", ["mp4", "mov", "mkv", "webm"])
def test_avi(tmp_path, codec, target, caplog):
    """AVI stores no times; those that FFmpeg makes up are kept."""
    path = make_clip(
        tmp_path / "clip.avi", codec=codec, time_base=Fraction(1, 25), pts=range(12), last_duration=1, b_frames=0,
        pixel_format="yuvj420p" if codec == "mjpeg" else "yuv420p", audio=["libmp3lame"],
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        copied = copy(path, tmp_path / f"copy.{target}")
    assert "damaged" not in caplog.text
    before, after = frames_of(path), frames_of(copied)
    assert [f.time for f in after] == pytest.approx([f.time for f in before], abs=0.001)
    for original, got in zip(before, after, strict=True):
        assert np.abs(got.pixels.astype(int) - original.pixels).mean() < 2.5


@pytest.mark.parametrize(
    ("codec", "stored"), [("mpeg4", "yuv420p"), ("libx264", "yuv420p"), ("rawvideo", "bgr24"), ("huffyuv", "yuv422p")]
)
def test_an_avi_of_another_program(tmp_path, codec, stored, caplog):
    """With B-frames, or raw: what cameras and capture programs write."""
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, width=64, height=48, pix_fmt=stored)
        stream.codec_context.max_b_frames = 2 if codec in ("mpeg4", "libx264") else 0
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(smooth_picture(64, 48, seed=index), format="rgb24")
            frame = frame.reformat(format=stored)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    frames = frames_of(path)
    assert len(frames) == 12
    assert {b.time - a.time for a, b in itertools.pairwise(frames)} == {Fraction(1, 25)}
    assert not caplog.records
    for index, frame in enumerate(frames):
        assert np.abs(frame.pixels.astype(int) - smooth_picture(64, 48, seed=index)).mean() < 5


def test_suffixes_nobody_can_write(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    with (
        open_source(path) as source,
        pytest.raises(InputError, match=r"use \.mp4, \.mov, \.mkv, \.webm, \.gif for video"),
    ):
        open_sink(tmp_path / "out.avi", source.info)
