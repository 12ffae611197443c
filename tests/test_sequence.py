"""Numbered pictures and folders of them, in and out. PNG keeps every level, so that the oracle is the array itself."""

import logging
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip, smooth_picture, video_timing

from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.sinks import open_sink
from videonst.sources import DamagedInputError, open_source
from videonst.trim import Trim


def write_pictures(folder: Path, names, size=(64, 48)) -> list[np.ndarray]:
    folder.mkdir(exist_ok=True)
    pictures = [smooth_picture(*size, seed=index) for index in range(len(names))]
    for name, picture in zip(names, pictures, strict=True):
        cv2.imwrite(str(folder / name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return pictures


def frames_of(path, **options):
    with open_source(path, **options) as source:
        return list(source)


def test_a_pattern_finds_its_first_number_and_counts_by_value(tmp_path):
    pictures = write_pictures(tmp_path / "in", ["frame_7.png", "frame_8.png", "frame_9.png", "frame_10.png"])
    (tmp_path / "in" / "frame_x.png").write_text("no number")
    (tmp_path / "in" / "frame_8.png.bak").write_text("not the whole name")
    frames = frames_of(tmp_path / "in" / "frame_%d.png", rate=Fraction(30000, 1001))
    assert [f.time for f in frames] == [i * Fraction(1001, 30000) for i in range(4)]
    assert [f.duration for f in frames] == [1] * 4
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.pixels, picture)


def test_zero_padded_numbers_have_their_width(tmp_path):
    pictures = write_pictures(tmp_path / "in", ["a_0001.png", "a_0002.png", "a_3.png"])
    frames = frames_of(tmp_path / "in" / "a_%04d.png")
    assert len(frames) == 2
    np.testing.assert_array_equal(frames[1].pixels, pictures[1])


def test_a_folder_is_read_in_natural_order(tmp_path):
    names = ["1.png", "2.png", "10.png", "11.png"]
    pictures = write_pictures(tmp_path / "in", names)
    (tmp_path / "in" / "readme.txt").write_text("ignored")
    frames = frames_of(tmp_path / "in")
    assert [f.time for f in frames] == [Fraction(i, 25) for i in range(4)]
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.pixels, picture)


def test_a_gap_is_counted_and_keeps_its_time(tmp_path, caplog):
    write_pictures(tmp_path / "in", ["5.png", "6.png", "9.png", "10.png"])
    (tmp_path / "in" / "10.png").write_bytes(b"torn")
    with caplog.at_level(logging.WARNING), open_source(tmp_path / "in" / "%d.png") as source:
        frames = list(source)
    assert [(f.pts, f.duration) for f in frames] == [(0, 1), (1, 3), (4, 2)]
    assert source.info.damage.lost == 3
    assert "3 pictures" in caplog.text
    with pytest.raises(DamagedInputError, match="3 pictures"):
        frames_of(tmp_path / "in" / "%d.png", strict=True)


@pytest.mark.parametrize(
    ("start", "end", "kept"), [("0.08", None, [2, 3, 4]), ("0.05", "0.12", [2]), (None, "0.1", [0, 1, 2])]
)
def test_a_part_of_the_pictures(tmp_path, start, end, kept):
    pictures = write_pictures(tmp_path / "in", [f"{i}.png" for i in range(5)])
    frames = frames_of(tmp_path / "in", trim=Trim.parse(start, end))
    assert [f.pts for f in frames] == list(range(len(kept)))
    for frame, index in zip(frames, kept, strict=True):
        np.testing.assert_array_equal(frame.pixels, pictures[index])


@pytest.mark.parametrize(
    ("name", "options", "wrong"),
    [
        ("absent/%d.png", {}, "there is no folder"),
        ("in/b_%d.png", {}, "no file fits"),
        ("in/%d.mp4", {}, "names no pictures"),
        ("in/%d.png", {"trim": Trim.parse(5)}, "no picture in the part"),
        ("in/%d.png", {"rate": Fraction(0)}, "more than 0"),
        ("in/0.png", {"rate": Fraction(5)}, "rate is for numbered pictures"),
    ],
)
def test_what_is_no_sequence_is_refused(tmp_path, name, options, wrong):
    write_pictures(tmp_path / "in", ["0.png", "1.png"])
    with pytest.raises(InputError, match=wrong):
        frames_of(tmp_path / name, **options)


def test_pictures_of_another_size_are_refused(tmp_path):
    write_pictures(tmp_path / "in", ["0.png"])
    cv2.imwrite(str(tmp_path / "in" / "1.png"), smooth_picture(32, 48))
    with pytest.raises(InputError, match=r"1.png is 32x48, the first picture 64x48"):
        frames_of(tmp_path / "in")


@pytest.mark.parametrize(
    ("target", "names"), [("out_%03d.png", ["out_001.png", "out_002.png"]), ("out/", ["000001.png", "000002.png"])]
)
def test_frames_become_numbered_pictures(tmp_path, target, names):
    pictures = [smooth_picture(64, 48, seed=seed) for seed in range(2)]
    with open_sink(f"{tmp_path}/{target}") as sink:
        for index, picture in enumerate(pictures):
            sink.write(Frame(picture, index))
    folder = tmp_path / "out" if target.endswith("/") else tmp_path
    assert sorted(p.name for p in folder.iterdir()) == names
    for name, picture in zip(names, pictures, strict=True):
        np.testing.assert_array_equal(cv2.imread(str(folder / name))[..., ::-1], picture)


def test_pictures_that_exist_are_kept_or_all_replaced(tmp_path):
    write_pictures(tmp_path / "out", ["000001.png", "000002.png", "000003.png"])
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 3 pictures such as 000001.png"):
        open_sink(tmp_path / "out")
    with open_sink(tmp_path / "out", overwrite=True) as sink:
        sink.write(Frame(smooth_picture(64, 48)))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000001.png", "notes.txt"]


def test_the_folder_that_is_read_is_not_written(tmp_path):
    write_pictures(tmp_path / "in", ["0.png"])
    with open_source(tmp_path / "in") as source, pytest.raises(InputError, match="same folder"):
        open_sink(tmp_path / "in", source.info, overwrite=True)


def test_no_frame_is_an_error(tmp_path):
    with pytest.raises(VideoNSTError, match="no frames came"), open_sink(tmp_path / "o_%d.png"):
        pass


def test_from_pictures_to_a_video_and_back(tmp_path):
    write_pictures(tmp_path / "in", [f"{i}.png" for i in range(6)])
    with open_source(tmp_path / "in", rate=Fraction(10)) as source, open_sink(tmp_path / "v.mp4", source.info) as sink:
        for frame in source:
            sink.write(frame)
    assert [t.start for t in video_timing(tmp_path / "v.mp4")] == [Fraction(i, 10) for i in range(6)]
    clip = make_clip(tmp_path / "clip.mp4", audio=["aac"])
    with open_source(clip) as source, open_sink(tmp_path / "p_%d.png", source.info) as sink:
        frames = list(source)
        for frame in frames:
            sink.write(frame)
    for frame, again in zip(frames, frames_of(tmp_path / "p_%d.png"), strict=True):
        np.testing.assert_array_equal(frame.pixels, again.pixels)
