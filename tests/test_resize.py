"""The size of the output, and the size at which the network works."""

from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from clips import display_matrix, geometry, make_clip, smooth_picture, video_timing
from typer.testing import CliRunner

from videonst.api import Stylizer, convert
from videonst.cli import app
from videonst.engines import EngineDescription
from videonst.engines.colour import keep_colour
from videonst.engines.metadata import SizeRules
from videonst.engines.onnx import OnnxEngine
from videonst.engines.strokes import StrokeScaled
from videonst.errors import InputError
from videonst.frame import Frame
from videonst.resize import Resize
from videonst.sources import open_source
from videonst.styles import StyleMix

MIX = StyleMix((("a", 1.0),))


class Inverting:
    """An engine without a network, which remembers the sizes it worked at."""

    description = EngineDescription(
        name="inverting", styles=(SimpleNamespace(name="a"),), size=SizeRules(), device="cpu", precision="fp32"
    )

    def __init__(self):
        self.sizes = []

    def stylize(self, frame, mix):
        self.sizes.append((frame.width, frame.height))
        return frame if mix.strength == 0 else frame.with_pixels(255 - frame.pixels)


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("320x200", (64, 48), (320, 200)),
        ("33x21", (64, 48), (33, 21)),
        ("720p", (1920, 1080), (1280, 720)),
        ("720p", (1080, 1920), (720, 1280)),
        ("480p", (640, 272), (1130, 480)),
        ("0.5", (1921, 1081), (960, 540)),
        ("2", (64, 48), (128, 96)),
        (".25", (640, 480), (160, 120)),
    ],
)
def test_sizes(text, size, expected):
    assert Resize.parse(text).applied(*size) == expected


@pytest.mark.parametrize("text", ["", "big", "0x10", "10x", "-2", "0", "0p", "720i", "1e3", "1280 x 720"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match=r"cannot read .* as a size; expected WIDTHxHEIGHT|leaves no pixels"):
        Resize.parse(text)


@pytest.mark.parametrize("text", ["0.001", "999", "40000x20"])
def test_sizes_out_of_reason(text):
    with pytest.raises(InputError, match=r"64x48 would become .*; expected sides of 1 to 16384 pixels"):
        Resize.parse(text).applied(64, 48)


@pytest.mark.parametrize(
    ("resize", "aspect_ratio", "expected"),
    [
        ("0.5", Fraction(1), (32, 24, 1)),
        ("96x48", Fraction(1), (96, 48, Fraction(2, 3))),
        ("32x48", Fraction(9, 8), (32, 48, Fraction(9, 4))),
        ("24p", Fraction(9, 8), (32, 24, Fraction(9, 8))),
    ],
)
def test_the_output_has_the_size_and_the_shape(tmp_path, resize, aspect_ratio, expected):
    """Shown, the picture is as wide as before over its height."""
    picture = smooth_picture(64, 48)
    path = make_clip(tmp_path / "clip.mp4", picture=picture, aspect_ratio=aspect_ratio, audio=["aac"])
    convert(path, tmp_path / "out.mp4", engine="none", resize=resize, crf=4)
    width, height, written, _ = geometry(tmp_path / "out.mp4")
    assert (width, height, written or 1) == expected
    assert video_timing(tmp_path / "out.mp4") == video_timing(path)
    with open_source(tmp_path / "out.mp4") as source:
        frame = next(iter(source))
    shrunk = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    assert np.abs(frame.pixels.astype(int) - shrunk).mean() < 2.5


def test_upright_clips_are_measured_upright(tmp_path):
    path = make_clip(tmp_path / "phone.mp4", display_matrix=display_matrix(0, 1, -1, 0))
    convert(path, tmp_path / "out.mp4", engine="none", resize="24p")
    assert geometry(tmp_path / "out.mp4")[:2] == (24, 32)


def test_alpha_is_resized_along(tmp_path):
    alpha = np.zeros((48, 64), np.uint8)
    alpha[:, 32:] = 255
    cv2.imwrite(str(tmp_path / "in.png"), np.dstack((smooth_picture(64, 48), alpha)))
    convert(tmp_path / "in.png", tmp_path / "out.png", engine="none", resize="0.5")
    read = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    assert read.shape == (24, 32, 4)
    np.testing.assert_array_equal(read[..., 3], alpha[::2, ::2])


@pytest.mark.parametrize(("scale", "size"), [(2, (48, 32)), (4, (24, 16)), (0.5, (192, 128))])
def test_the_network_works_at_another_resolution(portrait, scale, size):
    engine = Inverting()
    photo = np.ascontiguousarray(portrait[100:164, 100:196])
    painted = StrokeScaled(engine, scale).stylize(Frame(photo), MIX)
    assert engine.sizes == [size]
    assert painted.pixels.shape == photo.shape
    expected = 255 - photo.astype(int)
    error = np.abs(painted.pixels - expected).mean()
    small = cv2.resize(255 - photo, size, interpolation=cv2.INTER_AREA)
    bicubic = cv2.resize(small, (96, 64), interpolation=cv2.INTER_CUBIC)
    if scale > 1:  # the photograph's detail comes back where the painting follows it
        assert error < 0.6 * np.abs(bicubic - expected).mean()
    else:
        assert error < 1


def test_what_does_not_follow_the_photograph_is_enlarged_as_it_is():
    """Stripes of paint on a flat wall: bicubic alone, no detail invented."""

    class Striping(Inverting):
        def stylize(self, frame, mix):
            stripes = np.zeros_like(frame.pixels)
            stripes[:, ::8] = 200
            self.painted = stripes
            return frame.with_pixels(stripes)

    engine = Striping()
    wall = np.random.default_rng(0).integers(118, 123, (64, 96, 3), dtype=np.uint8)
    painted = StrokeScaled(engine, 2).stylize(Frame(wall), MIX).pixels
    bicubic = cv2.resize(engine.painted, (96, 64), interpolation=cv2.INTER_CUBIC)
    assert np.abs(painted.astype(int) - bicubic).mean() < 1


def test_strength_zero_is_untouched_and_colours_are_kept_at_full_resolution(portrait):
    photo = np.ascontiguousarray(portrait[100:164, 100:196])
    engine = StrokeScaled(Inverting(), 2)
    np.testing.assert_array_equal(engine.stylize(Frame(photo), MIX.with_strength(0)).pixels, photo)
    painted = engine.stylize(Frame(photo), MIX).pixels
    kept = engine.stylize(Frame(photo), StyleMix((("a", 1.0),), keep_colour=True)).pixels
    np.testing.assert_array_equal(kept, keep_colour(painted, photo))


def test_stroke_scales_out_of_reason(portrait):
    for scale in (0, 0.2, 9, float("nan")):
        with pytest.raises(InputError, match=r"is out of range; expected 0\.25"):
            StrokeScaled(Inverting(), scale)
    with pytest.raises(InputError, match=r"stroke scale 4 leaves 12x8 of the frame; expected sides of 16 pixels"):
        StrokeScaled(Inverting(), 4).stylize(Frame(np.ascontiguousarray(portrait[:32, :48])), MIX)


def test_convert_takes_both(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", size=(96, 64))
    engine = Inverting()
    convert(path, tmp_path / "out.mp4", "a", model=Stylizer(engine), resize="2", stroke_scale=4, steady=0)
    assert set(engine.sizes) == {(48, 32)}
    assert geometry(tmp_path / "out.mp4")[:2] == (192, 128)


def test_the_command_line_takes_both(tmp_path, small_model):
    path = make_clip(tmp_path / "clip.mp4", size=(96, 64), pts=[0, 40])
    arguments = ["convert", str(path), str(tmp_path / "out.mp4"), "-s", "a", "-m", str(small_model), "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--resize", "48x32", "--stroke-scale", "2"])
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (48, 32)


def test_bold_strokes_are_painted_side_by_side(small_model):
    """As many at once as there are of the small pictures that the network works on."""
    engine = StrokeScaled(OnnxEngine(small_model, "cpu", threads=4), 2)
    beside, painters = engine.side_by_side(1280, 720)
    assert painters == 4
    frame = Frame(np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8))
    painted, expected = (one.stylize(frame, StyleMix.parse("a")).pixels.astype(int) for one in (beside, engine))
    assert np.abs(painted - expected).max() <= 1
    assert engine.side_by_side(1, 1)[1] == 4  # nothing is left to work on, which painting says
    alone = StrokeScaled(Inverting(), 2)
    assert alone.side_by_side(64, 48) == (alone, 1)
