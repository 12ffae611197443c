import errno
import gc
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import (
    UNSPECIFIED,
    VFR,
    audio_packets,
    colour_tags,
    copy,
    display_matrix,
    geometry,
    make_clip,
    smooth_picture,
    subsample,
    video_timing,
    yuv_from_rgb,
    yuv_planes,
)

from videonst.av_frame import FrameConverter
from videonst.errors import InputError, VideoNSTError
from videonst.frame import ColourTags, Frame
from videonst.sinks import open_sink
from videonst.sinks.part_file import PartFile
from videonst.sources import open_source


def still(pixels: np.ndarray, **colour) -> Frame:
    return Frame(pixels, 0, Fraction(1, 1000), 40, ColourTags(**colour))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    "clip",
    [
        {"pts": VFR, "last_duration": 70},
        {"pts": [p + 4321 for p in VFR]},
        {"pts": range(90007, 120037, 3003), "time_base": Fraction(1, 90000), "last_duration": 3003},
        {"pts": range(7, 17), "time_base": Fraction(1001, 30000), "last_duration": 1},
        {"pts": VFR, "audio": ["aac"]},
    ],
    ids=["vfr", "offset", "90kHz", "ntsc", "sound"],
)
def test_times_are_kept(tmp_path, clip, suffix):
    path = make_clip(tmp_path / "clip.mp4", **clip)
    with open_source(path) as source:
        expected = [(frame.time, frame.duration * frame.time_base) for frame in source]
    copied = copy(path, tmp_path / f"copy.{suffix}")
    with open_source(copied) as source:
        got = [(frame.time, frame.duration * frame.time_base) for frame in source]
    if suffix == "mkv":  # counts in milliseconds, from zero: sound before it moves everything
        shift = _matroska_shift(path, copied)
        expected = [(time + shift, duration) for time, duration in expected]
        assert np.array(got, float) == pytest.approx(np.array(expected, float), abs=0.00101)
    else:
        assert got == expected
    assert [time for time, _ in got] == [start for start, _ in video_timing(copied)]


def _matroska_shift(path: Path, copied: Path) -> Fraction:
    """By how much the pictures moved: no further than the sound began before zero."""
    shift = video_timing(copied)[0].start - video_timing(path)[0].start
    with av.open(str(path)) as container:
        earliest = audio_packets(path)[0][0] if container.streams.audio else 0
    assert -0.001 < shift < max(0, -earliest) + 0.001
    return shift


@pytest.mark.parametrize(("name", "suffix"), [("nasa_streams.mp4", "mp4"), ("webcam_signing.mkv", "mov")])
def test_times_of_real_clips_are_kept(data, tmp_path, name, suffix):
    path = data / "video" / name
    copied = copy(path, tmp_path / f"copy.{suffix}", limit=30, shrink=8, drop=["audio"])
    assert [t for t, _ in video_timing(copied)] == [t for t, _ in video_timing(path)][:30]


@pytest.mark.parametrize(
    ("codec", "container", "target"),
    [
        ("aac", "mp4", "mp4"),
        ("aac", "mov", "mkv"),
        ("mp3", "mkv", "mp4"),
        ("pcm_s16le", "mov", "mov"),
        ("libopus", "mkv", "mkv"),
    ],
)
def test_sound_is_copied_packet_by_packet(tmp_path, codec, container, target):
    path = make_clip(tmp_path / f"clip.{container}", audio=[codec], pts=range(500, 900, 40))
    copy(path, tmp_path / f"copy.{target}")
    original, copied = audio_packets(path), audio_packets(tmp_path / f"copy.{target}")
    assert [data for _, _, data in copied] == [data for _, _, data in original]
    tolerance = 0.001 if "mkv" in (target, container) else 0
    if target == "mkv":  # counts from zero: sound before it moves everything
        shift = _matroska_shift(path, tmp_path / "copy.mkv")
        original = [(time + shift, *rest) for time, *rest in original]
        copied[-1] = (copied[-1][0], original[-1][1], b"")  # and states no duration for the last packet
    for column in (0, 1):
        got, expected = ([float(packet[column]) for packet in packets] for packets in (copied, original))
        assert got == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("name", ["nasa_streams.mp4", "talking_1080p.mp4", "cockatoo.mp4"])
def test_sound_of_real_clips_is_copied(data, tmp_path, name):
    path = data / "video" / name
    assert audio_packets(copy(path, tmp_path / "copy.mp4", limit=10, shrink=16)) == audio_packets(path)


def test_sound_is_interleaved_with_the_pictures(tmp_path):
    path = make_clip(tmp_path / "clip.mkv", pts=range(0, 60000, 2000), last_duration=2000, audio=["aac"])
    with av.open(str(copy(path, tmp_path / "copy.mkv"))) as container:
        times = [p.pts * p.time_base for p in container.demux() if p.size]
    assert max(max(times[:i]) - times[i] for i in range(1, len(times))) < 6  # of 60 s; 4 s are B-frames


def test_sound_can_be_left_out(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", audio=["aac"])
    with av.open(str(copy(path, tmp_path / "copy.mp4", drop=["audio"]))) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_colour_is_written_as_tagged(tmp_path, matrix, full_range, suffix):
    picture = smooth_picture(64, 48)
    path = tmp_path / f"out.{suffix}"
    with open_sink(path, crf=4) as sink:
        sink.write(still(picture, matrix=matrix, primaries=9, transfer=14, full_range=full_range))
    assert colour_tags(path) == (matrix, 2 if full_range else 1)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (matrix, 2 if full_range else 1)
        assert (frame.color_primaries, frame.color_trc) == (9, 14)
    expected = yuv_from_rgb(picture, matrix, full_range)
    for channel, plane in enumerate(yuv_planes(path)):
        values = subsample(expected[..., channel]) if channel else expected[..., 0]
        assert np.abs(plane - values).mean() < 1
        assert abs((plane - values).mean()) < (0.6 if full_range and channel else 0.2)  # swscale rounds these down


def test_pictures_for_the_encoder_carry_tags_and_times():
    frame = replace(still(smooth_picture(64, 48), matrix=9, primaries=9, transfer=14, full_range=True), pts=7)
    picture = FrameConverter().to_av(frame, "yuv420p")
    assert (picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range) == (9, 9, 14, 2)
    assert (picture.pts, picture.time_base, picture.duration) == (7, Fraction(1, 1000), 40)
    assert picture.pict_type == 0  # the encoder chooses


@pytest.mark.parametrize(("height", "matrix"), [(718, 6), (720, 1)])
def test_missing_tags_are_written_as_assumed(tmp_path, height, matrix):
    picture = smooth_picture(64, height)
    path = tmp_path / "out.mp4"
    with open_sink(path) as sink:
        sink.write(still(picture))
    assert colour_tags(path) == (matrix, 1)
    luma = yuv_planes(path)[0]
    assert np.abs(luma - yuv_from_rgb(picture, matrix, False)[..., 0]).mean() < 1.5


@pytest.mark.parametrize("full_range", [None, False, True])
@pytest.mark.parametrize("matrix", [UNSPECIFIED, 1, 6, 9])
def test_colour_round_trip(tmp_path, matrix, full_range):
    picture = smooth_picture(64, 48)
    path = make_clip(tmp_path / "clip.mp4", matrix=matrix, full_range=full_range, picture=picture)
    with open_source(copy(path, tmp_path / "copy.mp4", crf=4)) as source:
        frames = list(source)
    assert len(frames) == 10
    difference = frames[-1].pixels.astype(int) - picture
    assert np.abs(difference).mean() < 2
    cast = np.abs(difference.mean(axis=(0, 1))).max()
    assert cast < (1.2 if full_range else 0.3)  # swscale rounds full-range chroma down


@pytest.mark.parametrize(
    ("size", "pixel_format"), [((64, 48), "yuv420p"), ((65, 48), "yuv444p"), ((64, 47), "yuv444p")]
)
def test_odd_sizes_are_not_cropped(tmp_path, size, pixel_format):
    picture = smooth_picture(*size)
    path = tmp_path / "out.mp4"
    with open_sink(path) as sink:
        sink.write(still(picture))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.pix_fmt) == (*size, pixel_format)
    with open_source(path) as source:
        assert np.abs(next(iter(source)).pixels.astype(int) - picture).mean() < 2


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    ("matrix", "expected"),
    [((1, 0, 0, 1), (64, 48, Fraction(9, 8), False)), ((0, 1, -1, 0), (48, 64, Fraction(8, 9), False))],
    ids=["upright", "clockwise"],
)
def test_rotation_is_cleared_and_sample_aspect_ratio_kept(tmp_path, suffix, matrix, expected):
    path = make_clip(tmp_path / "clip.mp4", display_matrix=display_matrix(*matrix), aspect_ratio=Fraction(9, 8))
    assert geometry(copy(path, tmp_path / f"copy.{suffix}")) == expected


def test_encoder_settings(tmp_path):
    path = tmp_path / "out.mp4"
    with open_sink(path, crf=23.5, preset="medium") as sink:
        sink.write(still(smooth_picture(64, 720)))  # tall enough for several threads
    settings = path.read_bytes()
    assert b"crf=23.5" in settings
    assert b"rc_lookahead=40" in settings  # medium's; veryfast has 10
    assert b"sliced_threads=0" in settings


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_index_comes_first(tmp_path, suffix):
    content = copy(make_clip(tmp_path / "clip.mp4"), tmp_path / f"out.{suffix}").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("name", ["out.mp4", "out.png"])
def test_output_appears_only_when_complete(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"before")
    with open_sink(path, overwrite=True) as sink:
        sink.write(still(smooth_picture(64, 48)))
        assert path.read_bytes() == b"before"
    assert path.read_bytes() != b"before"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["out.mp4", "out.png"])
def test_an_exception_leaves_the_target_untouched(tmp_path, name, error):
    path = tmp_path / name
    path.write_bytes(b"before")
    with pytest.raises(error), open_sink(path, overwrite=True) as sink:  # noqa: PT012
        sink.write(still(smooth_picture(64, 48)))
        raise error
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["out.mp4", "out.png"])
def test_no_frames_no_file(tmp_path, name):
    with pytest.raises(VideoNSTError, match="no frame"), open_sink(tmp_path / name):
        pass
    assert os.listdir(tmp_path) == []


def test_input_is_never_overwritten(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    (tmp_path / "link.mp4").symlink_to(path)
    with open_source(path) as source:
        for name in ("clip.mp4", "link.mp4"):
            with pytest.raises(InputError, match="same file"):
                open_sink(tmp_path / name, source.info, overwrite=True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("absent/out.mp4", {}, "no directory"),
        ("directory.mp4", {"overwrite": True}, "is a directory"),
        ("present.mp4", {}, "exists already"),
        ("out.xyz", {}, r"unknown suffix '\.xyz'; use \.mp4"),
        ("out", {}, "unknown suffix"),
        ("out.png", {}, "the input is a video"),
        ("out.mp4", {"crf": 52}, "crf 52 is out of range"),
        ("out.mp4", {"preset": "warp"}, "unknown preset 'warp'"),
    ],
)
def test_refused_before_work_starts(tmp_path, name, options, message):
    clip = make_clip(tmp_path / "clip.mp4")
    (tmp_path / "directory.mp4").mkdir()
    (tmp_path / "present.mp4").write_bytes(b"before")
    before = sorted(os.listdir(tmp_path))
    with open_source(clip) as source, pytest.raises(InputError, match=message) as raised:
        open_sink(tmp_path / name, source.info, **options)
    assert "\n" not in str(raised.value)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "present.mp4").read_bytes() == b"before"


def test_a_picture_is_not_written_as_a_video(tmp_path):
    cv2.imwrite(str(tmp_path / "in.png"), smooth_picture(8, 8))
    with open_source(tmp_path / "in.png") as source, pytest.raises(InputError, match="the input is a picture"):
        open_sink(tmp_path / "out.mp4", source.info)


@pytest.mark.parametrize("name", ["out.mp4", "out.png"])
def test_unwritable_directory_is_refused(tmp_path, monkeypatch, name):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # a real one would not stop root
    with pytest.raises(InputError, match="Permission denied; name another directory"):
        open_sink(tmp_path / name)


def test_frames_must_keep_size_and_order(tmp_path):
    frame = still(smooth_picture(64, 48))
    with pytest.raises(VideoNSTError, match="presentation order"), open_sink(tmp_path / "out.mp4") as sink:  # noqa: PT012
        sink.write(frame)
        sink.write(frame)
    with pytest.raises(VideoNSTError, match="64x48 to 32x32"), open_sink(tmp_path / "out.mp4") as sink:  # noqa: PT012
        sink.write(frame)
        sink.write(replace(still(smooth_picture(32, 32)), pts=40))


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@pytest.mark.parametrize(("name", "frames"), [("out.mp4", 1), ("out.mp4", 40), ("out.mkv", 40), ("out.png", 1)])
def test_a_full_disk_is_one_clear_error(tmp_path, name, frames):
    code = """
import resource, sys
import numpy as np
from videonst.errors import VideoNSTError
from videonst.frame import Frame
from videonst.sinks import open_sink
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
try:
    with open_sink(sys.argv[1]) as sink:
        for index in range(int(sys.argv[2])):
            sink.write(Frame(noise, pts=index * 40))
except VideoNSTError as error:
    sys.exit(f"expected: {error}")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / name), str(frames)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"expected: cannot write {tmp_path / name}: File too large")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "PNG"])
def test_picture(tmp_path, suffix):
    picture = smooth_picture(40, 30)
    path = tmp_path / f"out.{suffix}"
    with open_sink(path) as sink:
        sink.write(still(picture))
    read = cv2.imread(str(path))[..., ::-1].astype(int)
    assert np.abs(read - picture).mean() < (2 if suffix.lower() != "png" else 1e-9)


def test_a_picture_holds_one_frame(tmp_path):
    with pytest.raises(VideoNSTError, match="holds one frame"), open_sink(tmp_path / "out.png") as sink:  # noqa: PT012
        sink.write(still(smooth_picture(8, 8)))
        sink.write(still(smooth_picture(8, 8)))
    assert os.listdir(tmp_path) == []


def test_a_part_that_nobody_holds_is_gone(tmp_path):
    """Ctrl-C may come between its creation and the block that discards it."""
    target = tmp_path / "out.mp4"
    part = PartFile(target, None, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == [".out.mp4.part"]
    del part
    gc.collect()
    assert not list(tmp_path.iterdir())
    part = PartFile(target, None, overwrite=False)
    part.commit()
    PartFile(target, None, overwrite=True)  # another one begins, and ends
    del part
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
