"""A part of a clip: which frames, at which times, and everything else in step with them."""

import itertools
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import VFR, audio_packets, copy, make_clip, stream_packets, video_timing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_streams import chapters, make_rich_clip

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sources import open_source
from videonst.trim import WHOLE, Trim


def frames(path: Path, trim: Trim = WHOLE) -> list[Frame]:
    with open_source(path, trim) as source:
        return list(source)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90.5", "90.5"),
        ("1:30.5", "90.5"),
        ("01:01:30.125", "3690.125"),
        ("0.1", "0.1"),
        (".5", "0.5"),
        (0.1, "0.1"),
        (2, "2"),
        (1e-5, "0.00001"),
        (Fraction(1001, 30000), "1001/30000"),
    ],
)
def test_times_are_read_exactly(time, seconds):
    assert Trim.parse(time).start == Fraction(seconds)


def test_duration_counts_from_the_start():
    assert Trim.parse("1:00", duration="2.5") == Trim(Fraction(60), Fraction(125, 2))
    assert Trim.parse(duration=2) == Trim(None, Fraction(2))
    assert Trim.parse() == WHOLE


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"start": "soon"}, "cannot read 'soon' as a time; expected seconds"),
        ({"start": "-3"}, "cannot read '-3' as a time"),
        ({"start": float("nan")}, "cannot read 'nan'"),
        ({"end": "1:2:3:4"}, "cannot read '1:2:3:4'"),
        ({"start": 5, "end": 3}, "nothing lies between start 5 and end 3"),
        ({"start": 5, "end": "0:05"}, "nothing lies between start 5 and end 0:05"),
        ({"duration": 0}, "nothing lies between start 0 and duration 0"),
        ({"end": 3, "duration": 3}, "give one of them"),
    ],
)
def test_nonsense_is_one_clear_line(times, message):
    with pytest.raises(InputError, match=message) as raised:
        Trim.parse(**times)
    assert "\n" not in str(raised.value)


CLIPS = {
    "vfr": {"pts": VFR, "last_duration": 70},
    "b-frames": {"pts": range(0, 3000, 100), "last_duration": 100, "b_frames": 3},
    "offset": {"pts": range(4321, 7321, 100), "last_duration": 100},
    "ntsc": {"pts": range(7, 37), "time_base": Fraction(1001, 30000), "last_duration": 1},
}


@pytest.fixture(scope="module", params=itertools.product(CLIPS, ["mp4", "mkv", "ts", "avi"]), ids="-".join)
def clip(request, tmp_path_factory) -> Path:
    """With a key frame every eight frames, so that seeking has somewhere to go."""
    name, suffix = request.param
    if suffix == "avi" and name in ("vfr", "offset"):
        pytest.skip("AVI counts frames")
    options = dict(CLIPS[name], b_frames=0) if suffix == "avi" else CLIPS[name]
    path = tmp_path_factory.mktemp("clip") / f"clip.{suffix}"
    return make_clip(path, keyframe_interval=8, audio=["libmp3lame"] if name == "b-frames" else [], **options)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(st.integers(0, 3000), st.integers(1, 1500)))
def test_frames_are_those_of_the_part(clip, milliseconds):
    """Any cut gives exactly the frames, bit by bit, that decoding the whole clip gives, moved to time 0."""
    whole = frames(clip)
    with av.open(str(clip)) as container:
        origin = max(0, min(s.start_time * s.time_base for s in container.streams))
    start, end = (Fraction(ms, 1000) for ms in (milliseconds[0], sum(milliseconds)))
    expected = [frame for frame in whole if start <= frame.time - origin < end]
    try:
        got = frames(clip, Trim(start, end))
    except InputError:
        assert not expected
        return
    assert [frame.time for frame in got] == [frame.time - expected[0].time for frame in expected]
    for frame, original in zip(got, expected, strict=True):
        np.testing.assert_array_equal(frame.pixels, original.pixels)
        left = origin + end - original.time
        assert (
            abs(frame.duration * frame.time_base - min(original.duration * original.time_base, left)) < frame.time_base
        )


def test_a_start_on_a_frame_is_that_frame(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", pts=range(0, 1000, 100), last_duration=100)
    for start in (0.1, 0.3, 0.7, "0.6"):
        trim = Trim.parse(start, duration="0.2")
        with open_source(path, trim) as source:
            assert source.info.part == Trim(trim.start, trim.end)
            assert (source.info.frame_count, source.info.duration) == (2, 0.2)
            assert [frame.time for frame in source] == [0, Fraction(1, 10)]


def test_without_a_start_times_stay(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", pts=range(4321, 5321, 100), last_duration=100)
    whole = frames(path)
    got = frames(path, Trim(end=Fraction("0.35")))
    assert [frame.time for frame in got] == [frame.time for frame in whole[:4]]
    assert got[-1].duration * got[-1].time_base == Fraction(5, 100)


def test_what_comes_before_the_start_is_not_read(tmp_path, caplog):
    path = make_clip(tmp_path / "clip.mp4", pts=range(0, 3000, 100), last_duration=100, keyframe_interval=5)
    trim = Trim(start=Fraction(2))
    expected = frames(path, trim)
    content = path.read_bytes()
    data, quarter = content.index(b"mdat") + 4, len(content) // 4
    path.write_bytes(content[:data] + bytes(quarter) + content[data + quarter :])
    got = frames(path, trim)
    assert len(got) == len(expected) == 10
    for frame, original in zip(got, expected, strict=True):
        np.testing.assert_array_equal(frame.pixels, original.pixels)
    assert not caplog.records
    frames(path)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize(
    ("trim", "message"),
    [
        (Trim(start=Fraction(7)), r"has its last frame at 0\.800 s, before the start at 7 s; choose an earlier start"),
        (Trim(Fraction("0.61"), Fraction("0.65")), r"no frame of .* begins between 0\.61 s and 0\.65 s"),
    ],
)
def test_a_part_without_frames_is_one_clear_line(tmp_path, trim, message):
    path = make_clip(tmp_path / "clip.mp4", pts=VFR)
    with pytest.raises(InputError, match=message) as raised:
        open_source(path, trim)
    assert "\n" not in str(raised.value)


def test_a_picture_has_no_parts(tmp_path):
    (tmp_path / "in.png").touch()
    with pytest.raises(InputError, match="is a picture and has no duration"):
        open_source(tmp_path / "in.png", Trim(start=Fraction(1)))


@pytest.mark.parametrize(("suffix", "target"), [("mp4", "mp4"), ("mkv", "mov"), ("mp4", "mkv")])
@pytest.mark.parametrize(("start", "end"), [("0", "0.9"), ("0.45", "1.2"), ("12.34", "13"), ("14", None)])
def test_sound_is_in_step(tmp_path, suffix, target, start, end):
    """Every packet that sounds in the part, and no more than one to either side, as far from the pictures as it was."""
    path = make_clip(
        tmp_path / f"clip.{suffix}", pts=range(0, 15000, 100), last_duration=100, audio=["aac"], size=(32, 32)
    )
    trim = Trim.parse(start, end)
    copied = copy(path, tmp_path / f"copy.{target}", trim=trim)
    before, after = audio_packets(path), audio_packets(copied)
    first = next(i for i, packet in enumerate(before) if packet[2] == after[0][2])
    assert [data for *_, data in after] == [data for *_, data in before[first : first + len(after)]]
    cut_in = next(t for t, _ in video_timing(path) if t >= trim.start)
    shift = video_timing(copied)[0].start - cut_in
    rounding = 0.002 if "mkv" in (suffix, target) else 1 / 48000
    for got, expected in zip(after, before[first:], strict=False):
        assert float(got[0]) == pytest.approx(float(expected[0] + shift), abs=rounding)
    assert -1 / 48000 <= video_timing(copied)[0].start < (0.03 if target == "mkv" else 1e-9)
    packet = Fraction(1024, 48000)
    assert before[first][0] <= max(cut_in, before[0][0]) <= before[first][0] + packet + Fraction(rounding)
    last = before[first + len(after) - 1][0]
    assert last < (trim.end or 99) <= last + packet + Fraction(rounding) or first + len(after) == len(before)


def test_texts_and_chapters_are_cut(tmp_path):
    path = make_rich_clip(tmp_path / "clip.mkv", subtitles=[("subrip", [b"one", b"two", b"three"])])
    copied = copy(path, tmp_path / "copy.mkv", trim=Trim(Fraction("0.16"), Fraction("0.28")), drop=["audio"])
    ms = Fraction(1, 1000)
    assert stream_packets(path)[2] == [
        (120 * i * ms, 100 * ms, text) for i, text in enumerate((b"one", b"two", b"three"))
    ]
    assert stream_packets(copied) == [[(0, 60 * ms, b"two"), (80 * ms, 40 * ms, b"three")]]
    assert chapters(copied) == [("second", 0, 120 * ms)]


def test_streams_of_a_real_clip_are_cut(data, tmp_path):
    path = data / "video" / "nasa_streams.mp4"
    copied = copy(path, tmp_path / "copy.mp4", trim=Trim(Fraction(5), Fraction("5.2")), shrink=16)
    cut_in = next(t for t, _ in video_timing(path) if t >= 5)
    assert [t for t, _ in video_timing(copied)] == [
        t - cut_in for t, _ in video_timing(path) if cut_in <= t < Fraction("5.2")
    ]
    original, cut = stream_packets(path), stream_packets(copied)
    for index, rate in ((0, 8000), (2, 16000)):
        expected = [p for p in original[index] if p[0] < Fraction("5.2") and p[0] + p[1] >= cut_in]
        assert [data for *_, data in cut[index]] == [data for *_, data in expected]
        for (got, *_), (time, *_) in zip(cut[index], expected, strict=True):
            assert abs(got - (time - cut_in)) <= Fraction(1, rate)
    for index in (1, 3):
        (time, duration, text), *rest = cut[index]
        assert (time, text) == (0, original[index][2][2])
        assert abs(duration - (Fraction("5.2") - cut_in)) < Fraction(1, 100_000)
        assert all(data == b"\x00\x00" for *_, data in rest)


def test_nothing_is_written_where_nothing_is_to_be_taken(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    with pytest.raises(InputError, match="before the start"):
        copy(path, tmp_path / "copy.mp4", trim=Trim(start=Fraction(9)))
    assert os.listdir(tmp_path) == ["clip.mp4"]
