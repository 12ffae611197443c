"""8-bit files against the torch network and against the fp32 file that they came from."""

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [train] extra")
onnx = pytest.importorskip("onnx", reason="needs the [train] extra")

from videonst.engines.metadata import read_metadata  # noqa: E402
from videonst.engines.onnx import OnnxEngine  # noqa: E402
from videonst.errors import InputError, VideoNSTError  # noqa: E402
from videonst.export import export_int8  # noqa: E402
from videonst.export import onnx as export  # noqa: E402
from videonst.frame import Frame  # noqa: E402
from videonst.live.painter import Engines  # noqa: E402
from videonst.models import find_model  # noqa: E402
from videonst.styles import StyleMix  # noqa: E402


@pytest.fixture(scope="module")
def photographs(portrait: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(portrait[y : y + 128, x : x + 128]) for y in (0, 128, 232) for x in (0, 232)]


@pytest.fixture(scope="module")
def int8_model(small_model: Path, photographs: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "small.int8.onnx"
    export_int8(small_model, path, photographs)
    return path


def test_all_convolutions_but_the_last_are_in_8_bits(small_model: Path, int8_model: Path) -> None:
    kinds = {"Conv", "QLinearConv"}
    plain, quantised = (
        [n for n in onnx.load(path).graph.node if n.op_type in kinds] for path in (small_model, int8_model)
    )
    assert {node.op_type for node in plain} == {"Conv"}
    assert [node.op_type for node in quantised] == ["QLinearConv"] * (len(plain) - 1) + ["Conv"]


def test_the_first_convolution_reads_the_bytes_of_the_frame(int8_model: Path) -> None:
    """From the frame to the first convolution values are only moved."""
    graph = onnx.load(int8_model).graph
    made_by = {output: node for node in graph.node for output in node.output}
    name = next(node for node in graph.node if node.op_type == "QLinearConv").input[0]
    while name != "frame":
        assert made_by[name].op_type in ("Pad", "Slice", "Reshape", "Transpose")
        name = made_by[name].input[0]


def test_a_file_that_is_taken_over_paints_in_8_bits_where_it_has_them(
    small_model: Path, int8_model: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.onnx"
    engines = Engines(small_model, "cpu")
    for name, beside, precision in (
        ("a", None, "fp32"),
        ("b", int8_model, "int8"),
        ("c", find_model("tiny.int8"), "fp32"),
    ):
        own = tmp_path / f"{name}.onnx"
        shutil.copy(small_model, own)
        if beside:
            shutil.copy(beside, tmp_path / f"{name}.int8.onnx")
        engines.adopt(own)
        assert engines.models == (str(own),)
        assert engines.get(str(own)).description.precision == precision


def test_statistics_can_be_held(int8_model: Path, portrait: np.ndarray) -> None:
    """Held at weight 1, a darker picture is painted with the normalisation of the brighter one, and its own do not
    count; at weight 0 what is given does not count."""
    engine = OnnxEngine(int8_model, "cpu")
    mix = StyleMix.parse("a")
    bright, dark = Frame(portrait), Frame(portrait // 2)
    painted, statistics = engine.stylize_holding(bright, mix, None, 0)
    assert statistics is not None
    np.testing.assert_array_equal(painted.pixels, engine.stylize(bright, mix).pixels)
    held, used = engine.stylize_holding(dark, mix, statistics, 1)
    np.testing.assert_allclose(used, statistics, rtol=1e-5, atol=1e-4)
    own, _ = engine.stylize_holding(dark, mix, statistics, 0)
    np.testing.assert_array_equal(own.pixels, engine.stylize(dark, mix).pixels)
    assert np.abs(held.pixels.astype(int) - own.pixels).mean() > 3
    again, _ = engine.stylize_holding(bright, mix, statistics, 1)
    assert np.abs(again.pixels.astype(int) - painted.pixels).max() <= 1  # rounding of mean + (held - mean)


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_the_photograph_is_faded_in_as_in_fp32(small_model, int8_model, portrait, strength):
    weights = StyleMix.parse("b", strength=strength).weights(["a", "b", "c"])
    feed = {"frame": portrait[None, :90, :123], "style_weights": weights}
    plain, quantised = (OnnxEngine(p, "cpu").session.run(["stylized"], feed)[0] for p in (small_model, int8_model))
    difference = np.abs(plain.astype(int) - quantised)
    assert difference.max() == 0 if strength == 0 else 0 < difference.mean() < export.INT8_MEAN


@pytest.mark.parametrize("mix", ["a", "b:0.5,c:0.5"])
@pytest.mark.parametrize("size", [(64, 64), (90, 123)])
def test_paints_nearly_as_the_fp32_file(small_model, int8_model, portrait, mix, size):
    frame = Frame(cv2.resize(portrait, size[::-1]))
    plain, quantised = (
        OnnxEngine(path, "cpu").stylize(frame, StyleMix.parse(mix)).pixels for path in (small_model, int8_model)
    )
    difference = np.abs(plain.astype(int) - quantised)
    assert 0 < difference.mean() < export.INT8_MEAN  # 0 would be the fp32 file again


def test_metadata_says_what_it_is(small_model: Path, int8_model: Path) -> None:
    plain, quantised = read_metadata(small_model), read_metadata(int8_model)
    assert (plain.precision, quantised.precision) == ("fp32", "int8")
    assert quantised.styles == plain.styles
    assert quantised.training == plain.training
    assert Counter(p.height for p in quantised.parity) == Counter(p.height for p in plain.parity)
    assert all(0 < p.mean < export.INT8_MEAN for p in quantised.parity)


def test_bad_input_is_refused(small_model, int8_model, photographs, tmp_path):
    with pytest.raises(InputError, match="is in int8; give the fp32 file"):
        export_int8(int8_model, tmp_path / "again.onnx", photographs)
    with pytest.raises(InputError, match="no photographs"):
        export_int8(small_model, tmp_path / "none.onnx", [])
    with pytest.raises(InputError, match="cannot write the model"):
        export_int8(small_model, tmp_path / "absent" / "x.onnx", photographs)
    assert not list(tmp_path.iterdir())


def test_a_file_that_paints_differently_is_not_written(small_model, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "INT8_MEAN", 1e-6)
    with pytest.raises(VideoNSTError, match="does not paint as torch does"):
        export_int8(small_model, tmp_path / "x.onnx", photographs)
    assert not list(tmp_path.iterdir())
