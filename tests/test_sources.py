import itertools
import logging
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import UNSPECIFIED, VFR, display_matrix, make_clip, smooth_picture, video_timing

from videonst.errors import InputError
from videonst.sources import open_source


def timing(path):
    with open_source(path) as source:
        return [(frame.time, frame.duration * frame.time_base) for frame in source]


@pytest.mark.parametrize(
    "clip",
    [
        {"pts": VFR, "last_duration": 70},
        {"pts": [p + 4321 for p in VFR]},
        {"pts": VFR, "b_frames": 0},
        {"pts": range(0, 30030, 3003), "time_base": Fraction(1, 90000), "last_duration": 3003},
        {"pts": range(7, 17), "time_base": Fraction(1001, 30000), "last_duration": 1},
    ],
    ids=["vfr", "offset", "no-b-frames", "90kHz", "ntsc"],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_times_are_those_of_the_file(tmp_path, clip, suffix):
    path = make_clip(tmp_path / f"clip.{suffix}", **clip)
    exact = 0 if suffix == "mp4" else 0.001  # Matroska counts in milliseconds
    time_base = clip.get("time_base", Fraction(1, 1000))
    got = timing(path)
    assert [start for start, _ in got] == [start for start, _ in video_timing(path)]
    assert [start for start, _ in got] == pytest.approx([pts * time_base for pts in clip["pts"]], abs=exact)
    assert [d for _, d in got[:-1]] == [b - a for (a, _), (b, _) in itertools.pairwise(got)]


@pytest.mark.parametrize("offset", [0, 4321])
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_last_duration_is_that_of_the_file(tmp_path, suffix, b_frames, offset):
    pts = [p + offset for p in VFR]
    path = make_clip(tmp_path / f"clip.{suffix}", pts=pts, last_duration=70, b_frames=b_frames)
    assert timing(path)[-1][1] == Fraction(70, 1000)


@pytest.mark.parametrize("name", ["webcam_signing.mkv", "nasa_streams.mp4", "talking_1080p.mp4"])
def test_times_of_real_clips(data, name):
    path = data / "video" / name
    expected = [start for start, _ in video_timing(path)][:40]
    got = []
    with open_source(path) as source:
        for frame in source:
            got.append(frame.time)
            if len(got) == len(expected):
                break
    assert got == expected


def test_info(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", size=(64, 48), pts=range(0, 400, 40))
    with open_source(path) as source:
        info = source.info
    assert (info.path, info.width, info.height, info.is_still) == (path, 64, 48, False)
    assert (info.frame_count, info.duration, info.average_rate) == (10, pytest.approx(0.4), 25)


TURNS = {
    "upright": ((1, 0, 0, 1), lambda a: a),
    "clockwise": ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),  # what a phone held upright writes
    "half": ((-1, 0, 0, -1), lambda a: np.rot90(a, 2)),
    "counter-clockwise": ((0, -1, 1, 0), np.rot90),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "flipped": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda a: a.swapaxes(0, 1)),
    "transversed": ((0, -1, -1, 0), lambda a: np.rot90(a, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("turn", TURNS)
def test_pictures_are_upright(tmp_path, turn, suffix):
    matrix, shown = TURNS[turn]
    stored = smooth_picture(64, 48)
    path = make_clip(tmp_path / f"clip.{suffix}", picture=stored, display_matrix=display_matrix(*matrix), pts=[0, 40])
    with open_source(path) as source:
        frames = list(source)
        assert (source.info.height, source.info.width) == shown(stored).shape[:2]
    assert len(frames) == 2
    for frame in frames:
        assert frame.pixels.flags.c_contiguous
        assert np.abs(frame.pixels.astype(int) - shown(stored)).mean() < 2


def test_the_matrix_is_that_of_the_standard(tmp_path):
    """A clip of which the nine numbers are written into the file by hand, after a track header of an iPhone."""
    stored = smooth_picture(64, 48)
    content = make_clip(tmp_path / "clip.mp4", picture=stored, pts=[0, 40]).read_bytes()
    unity, clockwise = (
        b"".join(value.to_bytes(4, "big", signed=True) for value in display_matrix(*numbers))
        for numbers in ((1, 0, 0, 1), (0, 1, -1, 0))
    )
    track = content.index(b"tkhd")
    at = content.index(unity, track)
    path = tmp_path / "phone.mp4"
    path.write_bytes(content[:at] + clockwise + content[at + 36 :])
    with open_source(path) as source:
        frame = next(iter(source))
    assert np.abs(frame.pixels.astype(int) - np.rot90(stored, -1)).mean() < 2


def test_a_tilted_clip_is_left_as_it_is_with_a_warning(tmp_path, caplog):
    stored = smooth_picture(64, 48)
    tilt = [56756, 32768, 0, -32768, 56756, 0, 0, 0, 1 << 30]  # 30 degrees
    path = make_clip(tmp_path / "clip.mp4", picture=stored, display_matrix=tilt)
    with open_source(path) as source:
        frame = next(iter(source))
    assert np.abs(frame.pixels.astype(int) - stored).mean() < 2
    assert "only quarter turns are applied" in caplog.text


@pytest.mark.parametrize(("turn", "expected"), [("upright", Fraction(8, 9)), ("clockwise", Fraction(9, 8))])
def test_sample_aspect_ratio(tmp_path, turn, expected):
    matrix = display_matrix(*TURNS[turn][0])
    path = make_clip(tmp_path / "clip.mp4", display_matrix=matrix, aspect_ratio=Fraction(8, 9))
    with open_source(path) as source:
        assert source.info.sample_aspect_ratio == expected
    with open_source(make_clip(tmp_path / "square.mp4")) as source:
        assert source.info.sample_aspect_ratio == 1


@pytest.mark.parametrize("full_range", [None, False, True])
@pytest.mark.parametrize("matrix", [UNSPECIFIED, 1, 5, 6, 9])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
def test_colour_follows_the_tags(tmp_path, matrix, full_range, pixel_format):
    picture = smooth_picture(64, 48)
    path = make_clip(
        tmp_path / "clip.mp4", matrix=matrix, full_range=full_range, pixel_format=pixel_format, picture=picture
    )
    with open_source(path) as source:
        frame = next(iter(source))
    assert np.abs(frame.pixels.astype(int) - picture).mean() < 2
    assert (frame.colour.matrix, bool(frame.colour.full_range)) == (matrix, bool(full_range))


@pytest.mark.parametrize(("height", "assumed", "other"), [(718, 6, 1), (720, 1, 6)])
def test_untagged_matrix_is_guessed_from_the_height(tmp_path, height, assumed, other):
    picture = smooth_picture(16, height)
    errors = []
    for matrix in (assumed, other):
        path = make_clip(
            tmp_path / f"{matrix}.mp4", size=(16, height), matrix=matrix, picture=picture, pixel_format="yuv444p"
        )
        untagged = tmp_path / f"{matrix}-untagged.mp4"
        _strip_colour_tags(path, untagged)
        with open_source(untagged) as source:
            frame = next(iter(source))
        assert frame.colour.matrix == UNSPECIFIED
        errors.append(np.abs(frame.pixels.astype(int) - picture).mean())
    assert errors[0] < 2 < errors[1]


def test_rgb_video_needs_no_matrix(tmp_path):
    picture = smooth_picture(33, 21)
    path = make_clip(tmp_path / "clip.mkv", codec="ffv1", pixel_format="bgr0", size=(33, 21), picture=picture)
    with open_source(path) as source:
        frame = next(iter(source))
    np.testing.assert_array_equal(frame.pixels, picture)
    assert (frame.colour.matrix, frame.colour.full_range) == (UNSPECIFIED, None)


def test_ten_bit_video_is_read(tmp_path):
    picture = smooth_picture(64, 48)
    eight = make_clip(tmp_path / "eight.mp4", picture=picture)
    ten = tmp_path / "ten.mkv"
    with av.open(str(eight)) as source, av.open(str(ten), "w") as output:
        stream = output.add_stream("ffv1", rate=25, width=64, height=48, pix_fmt="yuv420p10le")
        for frame in source.decode(video=0):
            output.mux(stream.encode(frame.reformat(format="yuv420p10le")))
        output.mux(stream.encode(None))
    with open_source(ten) as source:
        frames = list(source)
    assert len(frames) == 10
    assert np.abs(frames[0].pixels.astype(int) - picture).mean() < 2


def test_pixels_are_contiguous_and_of_odd_size(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", size=(65, 47), pixel_format="yuv444p", pts=[0, 40])
    with open_source(path) as source:
        for frame in source:
            assert frame.pixels.shape == (47, 65, 3)
            assert frame.pixels.flags.c_contiguous


def test_a_name_with_a_colon_is_a_file(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", pts=[0, 40]).rename(tmp_path / "http:clip.mp4")
    assert len(timing(path)) == 2


def test_cover_art_is_no_video(tmp_path):
    path = _sound_with_cover(tmp_path / "song.mp4")
    with pytest.raises(InputError, match="only sound"):
        open_source(path)


def _empty(path: Path) -> Path:
    path.touch()
    return path


def _text(path: Path) -> Path:
    path.write_text("no video here\n" * 50)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "absent.mp4", "does not exist"),
        (lambda d: d / "absent.png", "does not exist"),
        (lambda d: d, "holds no picture"),
        (lambda d: _text(d / "notes.txt"), "is a text file"),
        (lambda d: _text(d / "notes.mp4"), "is not a video file"),
        (lambda d: _text(d / "notes.png"), "is not a picture"),
        (lambda d: _empty(d / "empty.mp4"), "is not a video file"),
        (lambda d: _empty(d / "empty.png"), "is not a picture"),
        (lambda d: _truncated(d, 0.1), "no video frame that can be decoded"),
    ],
    ids=["absent", "absent-picture", "directory", "text", "text-mp4", "text-png", "empty", "empty-png", "no-frame"],
)
def test_bad_input_is_one_clear_line(tmp_path, make, message):
    with pytest.raises(InputError, match=message) as raised:
        open_source(make(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_damaged_tail_is_counted(tmp_path, caplog):
    path = _truncated(tmp_path, 0.6)
    with caplog.at_level(logging.WARNING), open_source(path) as source:
        delivered = len(list(source))
    assert 0 < delivered < 30
    assert f"{delivered} frames delivered, {30 - delivered} could not be decoded" in caplog.text


def test_a_sound_clip_warns_of_nothing(tmp_path, caplog):
    timing(make_clip(tmp_path / "clip.mp4", pts=VFR, audio=["aac"]))
    assert not caplog.records


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff"])
def test_picture(tmp_path, suffix):
    picture = smooth_picture(40, 30)
    path = tmp_path / f"picture.{suffix.upper()}"
    path.write_bytes(cv2.imencode(f".{suffix}", picture[..., ::-1])[1].tobytes())
    with open_source(path) as source:
        (frame,) = source
        assert (source.info.width, source.info.height, source.info.is_still) == (40, 30, True)
    assert np.abs(frame.pixels.astype(int) - picture).mean() < 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_picture(tmp_path, dtype):
    grey = smooth_picture(40, 30)[..., 0]
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), grey.astype(dtype) * (257 if dtype == np.uint16 else 1))
    with open_source(path) as source:
        (frame,) = source
    np.testing.assert_array_equal(frame.pixels, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_is_kept(tmp_path, dtype):
    scale = 257 if dtype == np.uint16 else 1
    path = tmp_path / "logo.png"
    bgra = np.zeros((4, 3, 4), dtype)
    bgra[..., 2] = 200 * scale
    bgra[..., 3] = np.array([0, 255, 102], dtype) * scale
    cv2.imwrite(str(path), bgra)
    with open_source(path) as source:
        (frame,) = source
    np.testing.assert_array_equal(frame.pixels[0], [[200, 0, 0]] * 3)
    np.testing.assert_array_equal(frame.alpha, [[0, 255, 102]] * 4)
    np.testing.assert_array_equal(frame.over_white().pixels[0], [[255, 255, 255], [200, 0, 0], [233, 153, 153]])


def test_transparent_and_rotated_is_refused(tmp_path):
    png = cv2.imencode(".png", np.dstack([smooth_picture(8, 6), np.full((6, 8), 99, np.uint8)]))[1].tobytes()
    chunk = b"eXIf" + _exif_orientation(6)
    header = 8 + 25  # signature and IHDR
    exif = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    path = tmp_path / "phone.png"
    path.write_bytes(png[:header] + exif + png[header:])
    with pytest.raises(InputError, match="both transparent and tagged as rotated"):
        open_source(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = smooth_picture(32, 16)
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(stored[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    exif = b"Exif\0\0" + _exif_orientation(orientation)
    path = tmp_path / "phone.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    with open_source(path) as source:
        (frame,) = source
    assert frame.pixels.shape == upright.shape
    assert np.abs(frame.pixels.astype(int) - upright).mean() < 3


def _exif_orientation(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0\0\0\0\0"


@pytest.mark.parametrize("package", ["videonst.sources", "videonst.sinks", "videonst.pipeline"])
def test_import_is_light(package):
    code = f"import sys, {package}; sys.exit(any(name in sys.modules for name in ('av', 'cv2', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _truncated(folder: Path, fraction: float) -> Path:
    """A clip of 30 frames whose index comes first, cut within the pictures."""
    whole = make_clip(folder / "whole.mp4", size=(96, 64), pts=range(0, 1200, 40))
    fast = folder / "fast.mp4"
    with av.open(str(whole)) as source, av.open(str(fast), "w", options={"movflags": "+faststart"}) as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    content = fast.read_bytes()
    data = content.index(b"mdat")
    path = folder / "cut.mp4"
    path.write_bytes(content[: data + int((len(content) - data) * fraction)])
    return path


def _strip_colour_tags(path: Path, target: Path) -> None:
    """Sets the matrix in the H.264 headers and in the container to unspecified, and nothing else."""
    with av.open(str(path)) as source, av.open(str(target), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        clean = av.BitStreamFilterContext("h264_metadata=matrix_coefficients=2", stream, copy)
        copy.codec_context.colorspace = UNSPECIFIED
        for packet in source.demux(stream):
            for filtered in clean.filter(packet if packet.size else None):
                filtered.stream = copy
                output.mux(filtered)


def _sound_with_cover(path: Path) -> Path:
    clip = make_clip(path.with_suffix(".mkv"), audio=["aac"])
    with av.open(str(clip)) as source, av.open(str(path), "w") as output:
        sound = output.add_stream_from_template(source.streams.audio[0])
        cover = output.add_stream("mjpeg", rate=1, width=16, height=16, pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic
        output.mux(cover.encode(av.VideoFrame(16, 16, "yuvj420p")))
        output.mux(cover.encode(None))
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = sound
                output.mux(packet)
    return path
