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


def branches(model: Path) -> dict[str, onnx.GraphProto]:
    """With held statistics and without."""
    node = next(node for node in onnx.load(model).graph.node if node.op_type == "If")
    found = {attribute.name: attribute.g for attribute in node.attribute}
    return {"held": found["then_branch"], "own": found["else_branch"]}


def test_all_convolutions_but_the_last_are_in_8_bits(small_model: Path, int8_model: Path) -> None:
    plain = [node.op_type for node in onnx.load(small_model).graph.node if "Conv" in node.op_type]
    assert set(plain) == {"Conv"}
    for branch in branches(int8_model).values():
        quantised = [node.op_type for node in branch.node if "Conv" in node.op_type]
        assert quantised == ["QLinearConv"] * (len(plain) - 1) + ["Conv"]


@pytest.mark.parametrize("branch", ["held", "own"])
def test_the_first_convolution_reads_the_bytes_of_the_frame(int8_model: Path, branch: str) -> None:
    """From the frame to the first convolution values are only moved."""
    nodes = branches(int8_model)[branch].node
    made_by = {output: node for node in nodes for output in node.output}
    name = next(node for node in nodes if node.op_type == "QLinearConv").input[0]
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


@pytest.mark.parametrize(("mix", "strength"), [("a", 1.0), ("b:0.5,c:0.5", 1.5), ("c", 0.5)])
@pytest.mark.parametrize("size", [(64, 64), (90, 123)])
def test_held_statistics_paint_the_same_whether_its_own_are_computed_or_not(int8_model, portrait, mix, strength, size):
    """A frame's own are not where the weight of the held ones is 1; a weight next to 1 makes them negligible."""
    engine, mix = OnnxEngine(int8_model, "cpu"), StyleMix.parse(mix, strength=strength)
    frame = Frame(cv2.resize(portrait, size[::-1]))
    _, statistics = engine.stylize_holding(Frame(255 - frame.pixels), mix, None, 0)
    (held, used), (nearly, nearly_used) = (
        engine.stylize_holding(frame, mix, statistics, weight) for weight in (1, float(np.float32(1) - 2**-24))
    )
    np.testing.assert_array_equal(used, statistics)
    np.testing.assert_allclose(nearly_used, statistics, rtol=1e-5, atol=1e-4)
    difference = np.abs(held.pixels.astype(int) - nearly.pixels)
    assert difference.max() <= 1
    assert difference.mean() < 0.01
    assert np.abs(held.pixels.astype(int) - engine.stylize(frame, mix).pixels).mean() > 1


def test_the_branches_share_their_weights_and_one_computes_no_statistics(int8_model: Path) -> None:
    read = {}
    for name, branch in branches(int8_model).items():
        convolutions = [node for node in branch.node if node.op_type == "QLinearConv"]
        reductions = sum(node.op_type == "ReduceMean" for node in branch.node)
        assert reductions == (0 if name == "held" else 4 * len(convolutions) + 2)  # of bytes in two steps
        read[name] = [list(node.input[1:]) for node in convolutions]
        own = {tensor.name for tensor in branch.initializer}
        assert not own & {name for inputs in read[name] for name in inputs}
    assert read["held"] == read["own"]


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
