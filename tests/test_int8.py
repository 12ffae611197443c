"""8-bit files against the torch network and against the fp32 file that they came from."""

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
from videonst.export import export_int8, int8  # noqa: E402
from videonst.export import onnx as export  # noqa: E402
from videonst.frame import Frame  # noqa: E402
from videonst.styles import StyleMix  # noqa: E402


@pytest.fixture(scope="module")
def photographs(portrait: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(portrait[y : y + 128, x : x + 128]) for y in (0, 128, 232) for x in (0, 232)]


@pytest.fixture(scope="module")
def int8_model(small_model: Path, photographs: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "small.int8.onnx"
    export_int8(small_model, path, photographs)
    return path


def test_inner_convolutions_are_in_8_bits(small_model: Path, int8_model: Path) -> None:
    """Each inner convolution reads quantised values and quantised weights; the first and the last do not."""

    def convolutions(path: Path) -> list[list[str]]:
        graph = onnx.load(path).graph
        made_by = {output: node.op_type for node in graph.node for output in node.output}
        return [[made_by.get(name, "-") for name in n.input[:2]] for n in graph.node if n.op_type == "Conv"]

    plain, quantised = convolutions(small_model), convolutions(int8_model)
    assert len(plain) == len(quantised) > 3
    assert all(inputs == ["DequantizeLinear"] * 2 for inputs in quantised[1:-1])
    assert not any("DequantizeLinear" in inputs for inputs in (*plain, quantised[0], quantised[-1]))


def test_borders_are_made_of_bytes(int8_model: Path) -> None:
    """Between the convolutions nothing is extended or enlarged in floating point."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(int8_model)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    of = Counter((n.op_type, kinds.get(n.output[0])) for n in graph.node if n.op_type in ("Pad", "Resize"))
    byte, single = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
    assert of == {("Pad", byte): 9, ("Pad", single): 3, ("Resize", byte): 1}


def test_moving_the_quantisation_changes_nothing(small_model, photographs, int8_model, portrait, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "_quantise_before_borders", lambda graph: None)
    int8.export_int8(small_model, tmp_path / "unmoved.onnx", photographs)
    frames = [OnnxEngine(p, "cpu").stylize(Frame(portrait), StyleMix.parse("b")) for p in tmp_path.iterdir()]
    np.testing.assert_array_equal(
        frames[0].pixels, OnnxEngine(int8_model, "cpu").stylize(Frame(portrait), StyleMix.parse("b")).pixels
    )


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
