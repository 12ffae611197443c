"""What the pictures are encoded with: every codec in every container that holds it, and what is refused."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import VFR, colour_tags, copy, make_clip, smooth_picture
from typer.testing import CliRunner

import videonst
from videonst.cli import app
from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sinks import open_sink
from videonst.sinks.codecs import CODECS
from videonst.sinks.video import MUXERS
from videonst.sources import open_source

SUFFIXES = {muxer: suffix for suffix, muxer in MUXERS.items()}
HELD = [
    (name, SUFFIXES[muxer])
    for name, codec in CODECS.items()
    for muxer in codec.muxers
    if muxer in SUFFIXES and "_" not in name and name != "gif"  # of which test_containers.py has more to say
]
HARDWARE = [name for name in CODECS if "_" in name]


def timed_pictures(path: Path) -> list[tuple[Fraction, Fraction, np.ndarray]]:
    with open_source(path) as source:
        return [(frame.time, frame.duration * frame.time_base, frame.pixels.astype(int)) for frame in source]


def stored_as(path: Path) -> tuple[str, str, str]:
    """(codec, pixel format, tag)"""
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return context.codec.canonical_name, context.pix_fmt, context.codec_tag


@pytest.mark.parametrize(("codec", "suffix"), HELD)
@pytest.mark.parametrize("size", [(64, 48), (65, 47)], ids=["even", "odd"])
def test_pictures_times_and_tags_survive(tmp_path, codec, suffix, size):
    path = make_clip(
        tmp_path / "clip.mkv", pts=[p + 4321 for p in VFR], last_duration=70, codec="ffv1", size=size,
        pixel_format="yuv444p", matrix=1, full_range=False,
    )  # fmt: skip
    copied = copy(path, tmp_path / f"copy{suffix}", codec=codec)
    before, after = timed_pictures(path), timed_pictures(copied)
    assert [(time, duration) for time, duration, _ in after] == [(time, duration) for time, duration, _ in before]
    for (*_, original), (*_, got) in zip(before, after, strict=True):
        assert got.shape == original.shape
        assert np.abs(got - original).mean() < 2.5
    assert colour_tags(copied) == ((0, 2) if codec == "ffv1" else (1, 1))
    stored = stored_as(copied)
    assert stored[0] == codec
    assert stored[2] == {"hevc": "hvc1", "h264": "avc1"}.get(codec, stored[2]) or suffix == ".mkv"


@pytest.mark.parametrize(("codec", "suffix"), HELD)
def test_longer_clips_survive_too(tmp_path, codec, suffix):
    """`convert` encodes in pieces, which are joined."""
    path = make_clip(tmp_path / "clip.mkv", pts=range(700, 10200, 431), last_duration=431, codec="ffv1", size=(64, 48),
                     pixel_format="yuv444p", matrix=1, full_range=False)  # fmt: skip
    videonst.convert(path, tmp_path / f"out{suffix}", engine="none", codec=codec)
    before, after = timed_pictures(path), timed_pictures(tmp_path / f"out{suffix}")
    assert [(time, duration) for time, duration, _ in after] == [(time, duration) for time, duration, _ in before]
    for (*_, original), (*_, got) in zip(before, after, strict=True):
        assert np.abs(got - original).mean() < 2.5


@pytest.mark.parametrize("name", CODECS)
def test_the_table_speaks_the_encoders_language(name):
    """Options and presets are looked up in FFmpeg's own lists, also those of devices that are not here."""
    codec = CODECS[name]
    if codec.encoder not in av.codecs_available:
        pytest.skip(f"{codec.encoder} is not part of this FFmpeg")
    context = av.CodecContext.create(codec.encoder, "w")
    options = {
        option.name: option for option in (*context.supported_options.generic, *context.supported_options.private)
    }
    used = {
        *codec.fixed,
        *([codec.quality] if codec.quality else []),
        *([codec.preset_option] if codec.presets else []),
    }
    assert used <= options.keys()
    choices = {choice.name for choice in options[codec.preset_option].choices} if codec.presets else set()
    assert not choices or {codec.preset, *codec.presets} <= choices | {"auto"}
    formats = {form.name for form in av.Codec(codec.encoder, "w").video_formats}
    assert set(codec.pixel_formats) <= formats


def test_usual_codecs(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    assert [stored_as(copy(path, tmp_path / f"copy{s}"))[0] for s in MUXERS] == ["h264", "h264", "h264", "vp9", "gif"]


def test_ffv1_keeps_every_bit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    with open_sink(tmp_path / "out.mkv", codec="ffv1") as sink:
        sink.write(Frame(noise, duration=40))
    with open_source(tmp_path / "out.mkv") as source:
        np.testing.assert_array_equal(next(iter(source)).pixels, noise)


@pytest.mark.parametrize(
    ("codec", "stored", "written"),
    [
        ("h264", "yuv420p", "yuv420p"),
        ("h264", "yuv422p", "yuv422p"),
        ("h264", "yuv444p10le", "yuv444p"),
        ("h264", "bgr0", "yuv444p"),
        ("hevc", "yuv422p10le", "yuv422p"),
        ("av1", "yuv444p", "yuv420p"),
        ("prores", "yuv420p", "yuv422p10le"),
        ("prores", "yuv444p", "yuv444p12le"),  # what FFmpeg decodes 4444 as
    ],
)
def test_chroma_is_kept_where_the_codec_can(tmp_path, codec, stored, written):
    picture = smooth_picture(64, 48)
    path = make_clip(tmp_path / "clip.mkv", codec="ffv1", pixel_format=stored, picture=picture)
    copied = copy(path, tmp_path / f"copy.{'mov' if codec == 'prores' else 'mp4'}", codec=codec)
    assert stored_as(copied)[1] == written
    assert np.abs(timed_pictures(copied)[0][2] - picture).mean() < 2


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_ten_bits_on_request(tmp_path, codec):
    path = make_clip(tmp_path / "clip.mp4")
    copied = copy(path, tmp_path / "copy.mp4", codec=codec, options={"pix_fmt": "yuv420p10le"})
    assert stored_as(copied)[1] == "yuv420p10le"
    assert np.abs(timed_pictures(copied)[0][2] - timed_pictures(path)[0][2]).mean() < 2


def test_settings_reach_the_encoder(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    content = copy(
        path, tmp_path / "copy.mp4", crf=23, preset="medium", options={"x264-params": "me=umh", "g": "7"}
    ).read_bytes()
    for setting in (b"crf=23.0", b"subme=7", b"me=umh", b"keyint=7 "):
        assert setting in content


def test_crf_decides_the_size(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for codec in ("h264", "hevc", "av1", "vp9"):
        sizes = []
        for crf in (10, 50):
            with open_sink(tmp_path / f"{codec}{crf}.mp4", codec=codec, crf=crf) as sink:
                sink.write(Frame(noise, duration=40))
            sizes.append((tmp_path / f"{codec}{crf}.mp4").stat().st_size)
        assert sizes[0] > 1.5 * sizes[1]


@pytest.mark.parametrize(
    ("suffix", "settings", "message"),
    [
        (".mp4", {"codec": "theora"}, "unknown codec 'theora'; expected one of h264, hevc"),
        (".webm", {"codec": "h264"}, "webm cannot hold h264; choose one of av1, vp9"),
        (".mp4", {"codec": "ffv1"}, "mp4 cannot hold ffv1; choose one of h264, hevc, av1, vp9"),
        (".mp4", {"codec": "hevc", "crf": 60}, r"crf 60 is out of range; hevc takes 0 \(best\) to 51"),
        (".mov", {"codec": "prores", "crf": 20}, "prores has no crf; leave it out"),
        (".mov", {"codec": "prores", "preset": "slow"}, "unknown preset 'slow' for prores; expected one of proxy"),
        (".mkv", {"codec": "ffv1", "preset": "slow"}, "unknown preset 'slow' for ffv1; leave it out"),
        (".mp4", {"options": {"colour": "blue", "g": "9"}}, "h264 has no option colour; see ffmpeg -h encoder=libx264"),
        (".mp4", {"options": {"g": "many"}}, "h264 does not take these settings .*g=many"),
        (".mp4", {"options": {"pix_fmt": "rgb24"}}, "h264 has no pixel format 'rgb24'; expected one of yuv420p"),
    ],
)
def test_what_the_codec_does_not_take_is_one_clear_line(tmp_path, suffix, settings, message):
    path = make_clip(tmp_path / "clip.mp4")
    with open_source(path) as source, pytest.raises(InputError, match=message) as raised:
        open_sink(tmp_path / f"out{suffix}", source.info, **settings)
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_odd_sizes_in_a_format_that_would_crop_are_refused(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", size=(65, 47), pixel_format="yuv444p")
    with open_source(path) as source, pytest.raises(InputError, match="these settings for 65x47 yuv420p"):
        open_sink(tmp_path / "out.mp4", source.info, options={"pix_fmt": "yuv420p"})


@pytest.mark.parametrize("codec", HARDWARE)
def test_hardware_works_or_is_refused_with_alternatives(tmp_path, codec):
    path = make_clip(tmp_path / "clip.mp4", size=(256, 256))
    refusal = ""
    try:
        copied = copy(path, tmp_path / "copy.mp4", codec=codec)
    except InputError as error:
        refusal = str(error)
    if refusal:  # both outcomes are right, by machine
        assert refusal.startswith(f"codec {codec} ")
        assert refusal.endswith("; use one of h264, hevc, av1, vp9")
        return
    before, after = timed_pictures(path), timed_pictures(copied)
    assert [time for time, *_ in after] == [time for time, *_ in before]
    assert np.abs(after[0][2] - before[0][2]).mean() < 3


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1"])
def test_the_same_file_each_time(tmp_path, codec):
    """Each run starts with other leftovers in memory, which x264's macroblock tree would read with AVX-512."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (4, 180, 320, 3), dtype=np.uint8)
    files = []
    for attempt in range(4):
        leftovers = [np.full(rng.integers(1000, 4_000_000), attempt + 1, np.uint8) for _ in range(3)]
        del leftovers[::2]
        with open_sink(tmp_path / f"{attempt}.mp4", codec=codec) as sink:
            for index in range(24):
                sink.write(Frame(np.roll(pictures[index // 6], index * 3, 1), index * 40, duration=40))
        files.append((tmp_path / f"{attempt}.mp4").read_bytes())
    assert len(set(files)) == 1


def test_the_command_line_takes_encoder_settings(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    arguments = ["convert", str(path), str(tmp_path / "out.mkv"), "--engine", "none", "--codec", "hevc", "--crf", "30"]
    result = CliRunner().invoke(app, [*arguments, "--preset", "fast", "-e", "pix_fmt=yuv422p", "-e", "g=5"])
    assert result.exit_code == 0, result.output
    assert stored_as(tmp_path / "out.mkv")[:2] == ("hevc", "yuv422p")
    result = CliRunner().invoke(app, [*arguments, "--overwrite", "-e", "g"])
    assert "cannot read 'g' as an encoder option; expected KEY=VALUE" in str(result.exception)
