import contextlib
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import make_clip, smooth_picture, video_timing
from typer.testing import CliRunner

import videonst
from videonst import api
from videonst.api import opencv_beside
from videonst.cli import app
from videonst.demo import CLIP, TOUR, glide
from videonst.engines.none import NoneEngine
from videonst.errors import InputError
from videonst.styles import StyleMix
from videonst.temporal.flow import DisFlow


@pytest.fixture(scope="module")
def model(small_model: Path) -> "videonst.Stylizer":
    return videonst.load(small_model, device="cpu")


def test_import_is_light():
    """`import videonst` brings in none of the heavy packages, and using the API never brings in torch."""
    code = (
        "import sys, videonst; heavy = {'cv2', 'av', 'onnxruntime', 'torch'} & set(sys.modules);"
        "videonst.load, videonst.convert; print(sorted(heavy), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        videonst.nothing  # noqa: B018


def test_stylize_takes_text_or_mix(model: "videonst.Stylizer", portrait: np.ndarray):
    image = portrait[:64, :80]
    text = model.stylize(image, "a:0.7, b:0.3", strength=0.8)
    mix = model.stylize(image, StyleMix((("a", 0.7), ("b", 0.3)), strength=0.8))
    assert text.shape == image.shape
    np.testing.assert_array_equal(text, mix)
    assert np.abs(text.astype(int) - image).mean() > 5


def test_stylize_refuses_other_arrays(model: "videonst.Stylizer"):
    with pytest.raises(InputError, match="uint8"):
        model.stylize(np.zeros((32, 32, 3), np.float32), "a")  # type: ignore[arg-type]


def test_convert_paints_every_frame_as_stylize_does(model: "videonst.Stylizer", tmp_path: Path):
    """The converted clip holds what `stylize` makes of each source frame, up to x264, at the same times."""
    from videonst.sources import open_source

    clip = tmp_path / "short.mkv"
    with av.open(str(CLIP)) as source, av.open(str(clip), "w") as out:
        stream = out.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 97, 65, "yuv444p"  # odd: written without subsampling
        for index, frame in enumerate(source.decode(video=0)):
            if index == 5:
                break
            small = frame.reformat(97, 65, "yuv444p")
            out.mux(stream.encode(small))
        out.mux(stream.encode(None))
    done = videonst.convert(clip, tmp_path / "out.mp4", "a:1,c:1", model=model, crf=1, steady=0)
    assert done.frames_done == 5
    with open_source(clip) as before, open_source(tmp_path / "out.mp4") as after:
        pairs = list(zip(before, after, strict=True))
    for source_frame, painted in pairs:
        assert painted.time == source_frame.time
        expected = model.stylize(source_frame.pixels, "a:1,c:1")
        assert np.abs(painted.pixels.astype(int) - expected).mean() < 2


def test_convert_keeps_steady(model: "videonst.Stylizer", tmp_path: Path):
    """The converted clip holds what the stabiliser makes of the frames in order, up to x264."""
    import cv2

    from videonst.sources import open_source

    clip = make_clip(tmp_path / "clip.mkv", size=(64, 48), picture=smooth_picture(64, 48))
    videonst.convert(clip, tmp_path / "out.mkv", "a", model=model, crf=1, steady=0.5, flow="fast")
    engine, mix = model.steady(0.5, flow="fast"), StyleMix.parse("a")
    with open_source(clip) as before, open_source(tmp_path / "out.mkv") as after:
        for source_frame, painted in zip(before, after, strict=True):
            expected = engine.stylize(source_frame, mix).pixels
            luma, expected_luma = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(int) for p in (painted.pixels, expected))
            assert np.abs(luma - expected_luma).mean() < 2
    with pytest.raises(InputError, match="steady is 2"):
        videonst.convert(clip, tmp_path / "out.mkv", "a", model=model, steady=2, overwrite=True)
    with pytest.raises(InputError, match="unknown flow 'best'"):
        videonst.convert(clip, tmp_path / "out.mkv", "a", model=model, flow="best", overwrite=True)


def test_convert_picture(model: "videonst.Stylizer", portrait: np.ndarray, tmp_path: Path):
    import cv2

    cv2.imwrite(str(tmp_path / "in.png"), cv2.cvtColor(portrait[:50, :61], cv2.COLOR_RGB2BGR))
    videonst.convert(tmp_path / "in.png", tmp_path / "out.png", "b", model=model)
    result = cv2.cvtColor(cv2.imread(str(tmp_path / "out.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(result, model.stylize(portrait[:50, :61], "b"))


@pytest.mark.parametrize("ends_badly", [False, True])
def test_opencv_keeps_to_one_thread_beside_the_network(model: "videonst.Stylizer", tmp_path: Path, ends_badly: bool):
    before, seen = cv2.getNumThreads(), []

    def look(_: object) -> None:
        seen.append(cv2.getNumThreads())
        if ends_badly:
            raise KeyboardInterrupt

    cv2.setNumThreads(3)
    try:
        with pytest.raises(KeyboardInterrupt) if ends_badly else contextlib.nullcontext():
            videonst.convert(CLIP, tmp_path / "out.mp4", "a", model=model, duration=0.2, progress=look)
        assert set(seen) == {1}
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_opencv_has_its_threads_back_after_the_last_of_several_networks():
    """Conversions at the same time, of which the first to begin is the first to end."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        first, second, on_gpu = opencv_beside("cpu"), opencv_beside("cpu"), opencv_beside("cuda")
        with on_gpu:
            assert cv2.getNumThreads() == 3
        first.__enter__()
        second.__enter__()
        assert cv2.getNumThreads() == 1
        first.__exit__(None, None, None)
        assert cv2.getNumThreads() == 1
        second.__exit__(None, None, None)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_convert_refuses_another_device_than_that_of_the_loaded_model(model: "videonst.Stylizer", tmp_path: Path):
    with pytest.raises(InputError, match="the model was loaded on cpu, not on cuda; load it with device='cuda'"):
        videonst.convert(CLIP, tmp_path / "out.mp4", "a", model=model, device="cuda", duration=0.04)
    with pytest.raises(InputError, match="engine 'none' paints nothing, but a model was given"):
        videonst.convert(CLIP, tmp_path / "out.mp4", model=model, engine="none", duration=0.04)
    assert not list(tmp_path.iterdir())
    videonst.convert(CLIP, tmp_path / "out.mp4", "a", model=model, device="cpu", duration=0.04)


def test_convert_a_part_without_its_sound(model: "videonst.Stylizer", tmp_path: Path):
    clip = make_clip(tmp_path / "clip.mp4", audio=["aac"])
    done = videonst.convert(clip, tmp_path / "out.mp4", "a", model=model, start=0.1, duration="0:00.2", drop=["audio"])
    assert done.frames_done == 5
    assert [start for start, _ in video_timing(tmp_path / "out.mp4")] == [Fraction(40 * i, 1000) for i in range(5)]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_the_command_line_passes_everything_on(small_model: Path, tmp_path: Path):
    clip = make_clip(tmp_path / "clip.mp4", audio=["aac"])
    options = [
        "--start",
        "0.1",
        "--end",
        "0.2",
        "--drop",
        "audio",
        "--drop",
        "subtitles",
        "--steady",
        "0.4",
        "--flow",
        "fast",
    ]
    arguments = [str(clip), str(tmp_path / "out.mp4"), "--style", "a", "--model", str(small_model), "--device", "cpu"]
    result = CliRunner().invoke(app, ["convert", *arguments, *options])
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [(stream.type, stream.frames) for stream in container.streams] == [("video", 2)]


def test_engine_none_gives_frames_back_untouched(tmp_path: Path):
    from videonst.sources import open_source

    clip = make_clip(tmp_path / "clip.mp4", audio=["aac"])
    done = videonst.convert(clip, tmp_path / "out.mp4", engine="none", crf=1)
    assert done.frames_done == 10
    with open_source(clip) as before, open_source(tmp_path / "out.mp4") as after:
        for original, passed in zip(before, after, strict=True):
            assert (passed.time, passed.duration) == (original.time, original.duration)
            assert np.abs(passed.pixels.astype(int) - original.pixels).mean() < 2
    result = CliRunner().invoke(app, ["convert", str(clip), str(tmp_path / "cli.mp4"), "--engine", "none"])
    assert result.exit_code == 0, result.output
    assert video_timing(tmp_path / "cli.mp4") == video_timing(clip)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no style was given; name one"),
        ({"engine": "none", "style": "a"}, "engine 'none' paints nothing; leave the style out"),
        ({"engine": "diesel"}, "unknown engine 'diesel'; expected one of onnx, none"),
    ],
)
def test_style_and_engine_must_fit(small_model: Path, tmp_path: Path, options, message):
    with pytest.raises(InputError, match=message):
        videonst.convert(CLIP, tmp_path / "out.mp4", model=small_model, device="cpu", **options)
    assert not list(tmp_path.iterdir())


def test_nonsense_is_refused_before_a_file_is_touched(model: "videonst.Stylizer", tmp_path: Path):
    with pytest.raises(InputError, match="nothing lies between"):
        videonst.convert(CLIP, tmp_path / "out.mp4", "a", model=model, start=3, end=2)
    assert not list(tmp_path.iterdir())


def test_unknown_style_leaves_no_file(model: "videonst.Stylizer", tmp_path: Path):
    with pytest.raises(InputError, match="unknown style 'zz'"):
        videonst.convert(CLIP, tmp_path / "out.mp4", "zz", model=model)
    assert not list(tmp_path.iterdir())


def test_glide_cross_fades_neighbours():
    assert glide(TOUR, 0).shares == ((TOUR[0], 1.0),)
    assert glide(TOUR, 1).shares == ((TOUR[-1], 1.0),)
    assert dict(glide(TOUR, 0.1).shares) == pytest.approx({TOUR[0]: 0.5, TOUR[1]: 0.5})
    assert glide(TOUR, -1) == glide(TOUR, 0)
    assert glide(TOUR, 2) == glide(TOUR, 1)


@pytest.mark.parametrize(("cores", "seekers"), [(1, 1), (7, 1), (8, 2), (64, 4)])
def test_motion_of_files_is_sought_ahead_where_there_are_cores(monkeypatch, cores, seekers):
    monkeypatch.setattr(api, "usable_cores", lambda: cores)
    asked = {}
    monkeypatch.setattr(api, "Stabiliser", lambda engine, **given: asked.update(given))
    api.looking_ahead(NoneEngine(), 64, 48, flow=DisFlow())
    assert (asked["painters"], asked["seekers"]) == (1, seekers)
