"""Flow networks: a model file on ONNX Runtime, and torchvision's RAFT."""

import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from clips import make_clip
from onnx import TensorProto, helper
from torchvision.models.optical_flow import raft_small
from typer.testing import CliRunner

import videonst
from videonst.cli import app
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.perceptual.raft import SMALLEST_SIDE, RaftFlow
from videonst.styles import StyleMix
from videonst.temporal.flow import open_flow
from videonst.temporal.onnx_flow import OnnxFlow


def flow_model(path: Path, kind=TensorProto.FLOAT, sides=("h", "w"), channels=2, inputs=("before", "after")) -> Path:
    """x is `after` less `before`, y is `before`: the red ones. An output of another size comes first, as in RAFT."""
    nodes = [helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT) for name in inputs]
    nodes += [
        helper.make_node("Sub", [f"{inputs[-1]}_f", f"{inputs[0]}_f"], ["change"]),
        helper.make_node("Slice", ["change", "zero", "one", "one"], ["x"]),
        helper.make_node("Slice", [f"{inputs[0]}_f", "zero", "one", "one"], ["y"]),
        helper.make_node("Concat", ["x", "y", "y"][:channels], ["flow"], axis=1),
        helper.make_node("AveragePool", ["flow"], ["coarse"], kernel_shape=[8, 8], strides=[8, 8]),
    ]
    constants = [
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
    ]
    pictures = [helper.make_tensor_value_info(name, kind, [1, 3, *sides]) for name in inputs]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("coarse", "flow")]
    graph = helper.make_graph(nodes, "flow", pictures, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def noise(seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8])
def test_pictures_go_in_as_they_are_and_the_finest_flow_comes_out(tmp_path: Path, kind):
    network = OnnxFlow(flow_model(tmp_path / "flow.onnx", kind))
    first, second = (network.prepare(noise(seed)) for seed in (1, 2))
    np.testing.assert_array_equal(first, cv2.cvtColor(noise(1), cv2.COLOR_RGB2GRAY))
    flow = network.flow(first, second)
    np.testing.assert_array_equal(flow[..., 0], second.astype(np.float32) - first)
    np.testing.assert_array_equal(flow[..., 1], first)


def test_sizes(tmp_path: Path):
    free = OnnxFlow(flow_model(tmp_path / "free.onnx"), side=40)
    assert free.prepare(noise(0, 100, 150)).shape == (32, 64)
    assert free.prepare(noise(0, 19, 30)).shape == (32, 32)
    assert OnnxFlow(free.path).prepare(noise(0, 720, 1280)).shape == (352, 640)
    fixed = OnnxFlow(flow_model(tmp_path / "fixed.onnx", sides=(64, 128)))
    grey = fixed.prepare(noise(0, 100, 150))
    assert grey.shape == (64, 128)
    assert fixed.flow(grey, grey).shape == (64, 128, 2)


def test_other_models_are_refused(tmp_path: Path, small_model: Path):
    with pytest.raises(InputError, match=r"there is no flow network .*missing\.onnx"):
        open_flow(str(tmp_path / "missing.onnx"))
    with pytest.raises(InputError, match=r"takes frame tensor\(uint8\).*expected two pictures"):
        open_flow(str(small_model))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"broken\.onnx cannot be loaded as a flow network on cpu: .*Protobuf"):
        open_flow(str(tmp_path / "broken.onnx"))
    with pytest.raises(InputError, match=r"takes before tensor\(double\).*expected two pictures"):
        OnnxFlow(flow_model(tmp_path / "double.onnx", TensorProto.DOUBLE))
    three = OnnxFlow(flow_model(tmp_path / "three.onnx", channels=3))
    with pytest.raises(VideoNSTError, match=r"gives .*\(1, 3, 64, 96\); expected \(1, 2, 64, 96\)"):
        three.flow(noise(0)[..., 0], noise(1)[..., 0])


def test_motion_that_is_no_number_is_none(tmp_path: Path):
    """As a network may give on black frames, where it divides by the deviation of the picture."""
    path = tmp_path / "dividing.onnx"
    pictures = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "h", "w"]) for name in ("a", "b")]
    nodes = [
        helper.make_node("Div", ["a", "b"], ["ratio"]),
        helper.make_node("Slice", ["ratio", "zero", "two", "one"], ["flow"]),
    ]
    constants = [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in (("zero", 0), ("two", 2), ("one", 1))]
    output = helper.make_tensor_value_info("flow", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "dividing", pictures, [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    black = np.zeros((64, 96), np.uint8)
    bright = black.copy()
    bright[:, 48:] = 8
    flow = OnnxFlow(path).flow(bright, black)  # 0 / 0 and 8 / 0
    assert not flow.any()


def test_convert_with_a_flow_network(tmp_path: Path, small_model: Path):
    """Other flow, other picture; and a conversion is not resumed with other flow."""
    clip = make_clip(tmp_path / "clip.mkv", size=(64, 48))
    network = flow_model(tmp_path / "flow.onnx")
    for flow, out in (("fast", "dis.mkv"), (str(network), "network.mkv")):
        arguments = ["convert", str(clip), str(tmp_path / out), "-m", str(small_model), "-s", "a", "--flow", flow]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "dis.mkv").stat().st_size != (tmp_path / "network.mkv").stat().st_size
    names = {open_flow("fast").name, open_flow("medium").name, OnnxFlow(network).name}
    flow_model(network, kind=TensorProto.UINT8)
    assert len(names | {OnnxFlow(network).name}) == 4


@pytest.fixture(scope="module")
def raft() -> RaftFlow:
    torch.manual_seed(0)
    return RaftFlow(raft_small())


def test_raft_is_torchvisions(raft: RaftFlow):
    first, second = (raft.prepare(noise(seed, 128, 136)) for seed in (3, 4))
    pictures = [torch.from_numpy(g).float().div(127.5).sub(1).expand(1, 3, -1, -1) for g in (first, second)]
    with torch.no_grad():
        expected = raft._model(*pictures)[-1][0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(raft.flow(first, second), expected, atol=1e-4)


def test_raft_on_small_frames(raft: RaftFlow):
    grey = raft.prepare(noise(5, 40, SMALLEST_SIDE + 30))
    assert grey.shape == (40, 160)
    assert raft.flow(grey, grey).shape == (40, 160, 2)


def test_raft_from_the_command_line(tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(**_: object) -> None:
        raise OSError("no network")

    arguments = ["convert", "in.mp4", "out.mp4", "-m", str(small_model), "-s", "a", "--flow", "raft"]
    monkeypatch.setattr("videonst.perceptual.raft.raft_small", refuse)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert "cannot download RAFT's weights (no network)" in str(result.exception)
    monkeypatch.setitem(sys.modules, "videonst.perceptual.raft", None)
    result = CliRunner().invoke(app, arguments)
    assert "pip install 'videonst[train]'" in str(result.exception)


def test_weights_of_raft_that_were_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / "raft_small_C_T_V2-01064c6d.pth"
    path.parent.mkdir()
    for content in (b"", b"PK\x03\x04 and no more", b"no weights"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"damaged .*delete raft_small_C_T_V2-01064c6d\.pth"):
            RaftFlow()


def test_a_provider_of_ones_own(small_model: Path):
    asked = []

    class Still:
        name = "still"

        def prepare(self, pixels: np.ndarray) -> np.ndarray:
            return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)

        def flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
            asked.append((first.shape, second.shape))
            return np.zeros((*first.shape, 2), np.float32)

    steady, mix = videonst.load(small_model).steady(0.5, flow=Still()), StyleMix.parse("a")
    for pts, seed in enumerate((1, 2)):
        steady.stylize(Frame(noise(seed, 40, 48), pts=pts), mix)
    assert asked == [((40, 48), (40, 48))] * 2
