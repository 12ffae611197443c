"""Transparency: kept where the target holds it, else refused or laid over white on request."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import copy, make_clip, smooth_picture

from videonst.api import convert
from videonst.engines.none import NoneEngine
from videonst.errors import InputError
from videonst.frame import Frame
from videonst.sinks import open_sink
from videonst.sources import open_source
from videonst.styles import StyleMix

ALPHA = np.zeros((48, 64), np.uint8)
ALPHA[:, 16:40], ALPHA[:, 40:] = 255, 100
HOLDING = [(".webm", "vp9"), (".mkv", "vp9"), (".mov", "prores"), (".mkv", "prores"), (".mkv", "ffv1")]
NOT_HOLDING = [(".mp4", "h264"), (".mkv", "h264"), (".mp4", "vp9"), (".webm", "av1"), (".mkv", "hevc")]


def transparent_clip(path: Path, codec: str, *, opaque_first: int = 0, frames: int = 4) -> Path:
    with open_sink(path, codec=codec, crf=4 if codec == "vp9" else None) as sink:
        for index in range(frames):
            alpha = np.full_like(ALPHA, 255) if index < opaque_first else np.roll(ALPHA, index, axis=1)
            sink.write(Frame(smooth_picture(64, 48, seed=index), index * 40, duration=40, alpha=alpha))
    return path


def frames_of(path: Path) -> list[Frame]:
    with open_source(path) as source:
        return list(source)


def assert_kept(frames: list[Frame]) -> None:
    assert len(frames) == 4
    for index, frame in enumerate(frames):
        assert frame.alpha is not None
        expected = np.roll(ALPHA, index, axis=1)
        assert np.abs(frame.alpha.astype(int) - expected).mean() < 2
        seen = expected > 0  # colours that nothing shows are the encoder's to change
        assert np.abs(frame.pixels.astype(int) - smooth_picture(64, 48, seed=index))[seen].mean() < 3


@pytest.mark.parametrize(("suffix", "codec"), HOLDING)
def test_alpha_survives_the_way_through(tmp_path, suffix, codec):
    path = transparent_clip(tmp_path / "clip.mkv", "ffv1")
    written = copy(path, tmp_path / f"copy{suffix}", codec=codec)
    assert_kept(frames_of(written))
    assert_kept(frames_of(copy(written, tmp_path / "again.mkv", codec="ffv1")))


def test_ffmpegs_own_decoder_of_the_container_sees_it(tmp_path):
    """ProRes 4444, which editors take, holds four planes."""
    with av.open(str(transparent_clip(tmp_path / "clip.mov", "prores"))) as container:
        assert container.streams.video[0].codec_context.codec_tag == "ap4h"
        plane = next(container.decode(video=0)).reformat(format="yuva444p").planes[3]
        stored = np.frombuffer(plane, np.uint8).reshape(48, plane.line_size)[:, :64]
    assert np.abs(stored.astype(int) - ALPHA).max() <= 1


def test_a_part_of_a_transparent_clip(tmp_path):
    path = transparent_clip(tmp_path / "clip.webm", "vp9")
    convert(path, tmp_path / "out.mkv", engine="none", codec="ffv1", start=0.08)
    first, second = frames_of(tmp_path / "out.mkv")
    for frame, index in ((first, 2), (second, 3)):
        assert np.abs(frame.alpha.astype(int) - np.roll(ALPHA, index, axis=1)).mean() < 2


@pytest.mark.parametrize(("suffix", "codec"), NOT_HOLDING)
def test_alpha_that_does_not_fit_is_refused_before_work_starts(tmp_path, suffix, codec):
    path = transparent_clip(tmp_path / "clip.mov", "prores")
    with (
        open_source(path) as source,
        pytest.raises(InputError, match=r"cannot hold the transparency of the input; .*--drop alpha") as raised,
    ):
        open_sink(tmp_path / f"out{suffix}", source.info, codec=codec)
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mov"]


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_drop_alpha_lays_it_over_white(tmp_path, suffix):
    path = transparent_clip(tmp_path / "clip.mkv", "ffv1")
    first = frames_of(copy(path, tmp_path / f"copy{suffix}", drop=["alpha"]))[0]
    assert first.alpha is None
    weight = ALPHA[..., None] / 255
    expected = smooth_picture(64, 48) * weight + 255 * (1 - weight)
    error = np.abs(first.pixels - expected)
    assert error.mean() < 4  # the edges are hard, and chroma is half as fine
    assert error[:, 4:12].mean() < 2


def test_an_opaque_clip_with_room_for_alpha_is_no_obstacle(tmp_path, caplog):
    path = transparent_clip(tmp_path / "clip.mkv", "ffv1", opaque_first=4)
    assert len(frames_of(copy(path, tmp_path / "copy.mp4"))) == 4
    assert not caplog.records


def test_transparency_that_comes_late_is_laid_over_white_with_a_warning(tmp_path, caplog):
    path = transparent_clip(tmp_path / "clip.mkv", "ffv1", opaque_first=2)
    last = frames_of(copy(path, tmp_path / "copy.mp4"))[3]
    assert caplog.text.count("cannot hold transparency, which is laid over white") == 1
    assert last.pixels[:, 6:16].min() > 245


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_pictures_keep_alpha(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / "in.png"), np.dstack((smooth_picture(64, 48), ALPHA)))
    convert(tmp_path / "in.png", tmp_path / f"out.{suffix}", engine="none")
    read = cv2.imread(str(tmp_path / f"out.{suffix}"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read[..., 3], ALPHA)
    seen = ALPHA > 0
    assert np.abs(read[..., :3].astype(int) - smooth_picture(64, 48))[seen].mean() < 2


def test_pictures_without_room_are_refused_or_white(tmp_path):
    cv2.imwrite(str(tmp_path / "in.png"), np.dstack((smooth_picture(64, 48), ALPHA)))
    with pytest.raises(InputError, match=r"\.jpg cannot hold the transparency of the input; write \.png or \.webp"):
        convert(tmp_path / "in.png", tmp_path / "out.jpg", engine="none")
    with pytest.raises(InputError, match=r"\.jpg cannot hold the transparency"):
        convert(tmp_path / "in.png", tmp_path / "out_%d.jpg", engine="none")
    convert(tmp_path / "in.png", tmp_path / "out.jpg", engine="none", drop=["alpha"])
    assert cv2.imread(str(tmp_path / "out.jpg"))[:, :8].min() > 245


def test_numbered_pictures_carry_alpha_both_ways(tmp_path):
    path = transparent_clip(tmp_path / "clip.mkv", "ffv1")
    convert(path, tmp_path / "frames_%d.png", engine="none")
    convert(tmp_path / "frames_%d.png", tmp_path / "out.mov", engine="none", codec="prores")
    assert_kept(frames_of(tmp_path / "out.mov"))


def test_engines_carry_alpha_along(small_model):
    from videonst.engines.onnx import OnnxEngine

    frame = Frame(smooth_picture(64, 48), alpha=ALPHA)
    for engine, mix in ((NoneEngine(), StyleMix(())), (OnnxEngine(small_model, "cpu"), StyleMix((("a", 1.0),)))):
        np.testing.assert_array_equal(engine.stylize(frame, mix).alpha, ALPHA)


def test_alpha_must_fit_the_pixels():
    with pytest.raises(InputError, match=r"alpha needs uint8 \(48, 64\), as the pixels, got uint8 \(2, 2\)"):
        Frame(smooth_picture(64, 48), alpha=np.zeros((2, 2), np.uint8))


def test_clips_without_alpha_have_none(tmp_path):
    assert frames_of(make_clip(tmp_path / "clip.mp4"))[0].alpha is None
