"""The exported file against the torch network that it came from."""

import base64
import copy
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [train] extra")
onnx = pytest.importorskip("onnx", reason="needs the [train] extra")

import onnxruntime as ort  # noqa: E402

import videonst.export.onnx as export  # noqa: E402
from videonst.engines.metadata import ModelMetadata, StyleInfo, held_model, read_metadata  # noqa: E402
from videonst.errors import InputError, VideoNSTError  # noqa: E402
from videonst.export import describe_paintings, export_onnx, load_network  # noqa: E402
from videonst.network import StyleNetwork  # noqa: E402
from videonst.network.model import normalise  # noqa: E402
from videonst.training.data import Painting  # noqa: E402

STYLES = [StyleInfo(name=n) for n in "abc"]
MIXES = {
    "photo": [1, 0, 0, 0],
    "one style": [0, 0, 1, 0],
    "mixture": [0, 0.2, 0.5, 0.3],
    "half strength": [0.5, 0.5, 0, 0],
    "strength 1.3": [-0.3, 0, 0, 1.3],
}


@pytest.fixture(scope="module")
def half_model(small_network: StyleNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half") / "small.fp16.onnx"
    export_onnx(small_network, path, styles=STYLES, precision="fp16")
    return path


def run(path: Path, frame: np.ndarray, mix: list[float]) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"frame": frame[None], "style_weights": np.array([mix], np.float32)})[0][0]


def paint(network: StyleNetwork, frame: np.ndarray, mix: list[float]) -> np.ndarray:
    """The network in torch, rounded by numpy."""
    x = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        y = network(x, torch.tensor([mix], dtype=torch.float32))
    return np.floor(y[0].permute(1, 2, 0).numpy() * 255 + 0.5).clip(0, 255).astype(np.uint8)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(16, 16), (17, 19), (64, 33), (90, 122)])
@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_file_paints_as_torch_does(small_model, small_network, size, mix):
    frame = picture(*size)
    difference = np.abs(run(small_model, frame, mix).astype(int) - paint(small_network, frame, mix))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_half_precision_stays_within_limits(half_model, small_network, mix):
    frame = picture(75, 101)
    difference = np.abs(run(half_model, frame, mix).astype(int) - paint(small_network, frame, mix))
    assert difference.mean() <= 0.5
    assert np.percentile(difference, 99.9) <= 4


def test_graph_is_lean_and_of_opset_18(small_model):
    model = onnx.load(small_model)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert not model.functions
    count = Counter(node.op_type for node in model.graph.node)
    for kind in count:  # every operator in its form of opset 18 or before
        assert onnx.defs.get_schema(kind, 18).since_version <= 18
    assert not count.keys() & {"Loop", "If", "Scan", "Identity", "Constant", "BatchNormalization", "ConstantOfShape"}
    assert count["MatMul"] == 1
    assert count["Split"] == 2
    assert count["Cast"] == 2  # bytes to floats and back
    assert count["Conv"] == 11
    assert count["ReduceMean"] == 22  # of values and of squares
    assert count["ReduceL2"] == 0  # would need the picture's size as a float
    assert len(model.graph.node) <= 400


def test_half_graph_normalises_in_fp32_and_convolves_in_fp16(half_model):
    model = onnx.shape_inference.infer_shapes(onnx.load(half_model))
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    types |= {t.name: t.data_type for t in model.graph.initializer}
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for node in model.graph.node:
        if node.op_type == "ReduceMean":
            assert types[node.input[0]] == single
        if node.op_type in ("Conv", "Resize", "Relu", "Sigmoid"):
            assert types[node.output[0]] == half
    assert types["bank"] == single


@pytest.mark.parametrize("name", ["small_model", "half_model"])
def test_inputs_and_outputs(name, request, small_network):
    size = small_network.statistics_size
    session = ort.InferenceSession(request.getfixturevalue(name), providers=["CPUExecutionProvider"])
    values = [(v.name, v.type, v.shape) for v in (*session.get_inputs(), *session.get_outputs())]
    assert values == [
        ("frame", "tensor(uint8)", [1, "height", "width", 3]),
        ("style_weights", "tensor(float)", [1, 4]),
        ("stylized", "tensor(uint8)", [1, "height", "width", 3]),
        ("used_statistics", "tensor(float)", [1, size]),
    ]
    optional = session.get_overridable_initializers()
    assert {(v.name, v.type, tuple(v.shape)) for v in optional} == {
        ("statistics", "tensor(float)", (1, size)),
        ("hold", "tensor(float)", (1,)),
    }


def statistics_of(network: StyleNetwork, frame: np.ndarray, mix: list[float]) -> np.ndarray:
    """Mean and variance of what every normalisation is given, in order, taken on the way through the plain network."""
    found = []

    def watched(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        found.extend((x.mean((2, 3)), x.var((2, 3), unbiased=False)))
        return normalise(x, gamma, beta)

    with torch.no_grad():
        network(torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255, torch.tensor([mix]), watched)
    return torch.cat(found, 1).numpy()


def test_statistics_are_those_of_the_plain_network(small_model, small_network):
    frame, mix = picture(40, 52), [0.0, 0.2, 0.5, 0.3]
    session = ort.InferenceSession(small_model, providers=["CPUExecutionProvider"])
    feed = {"frame": frame[None], "style_weights": np.array([mix], np.float32)}
    plain, used = session.run(None, feed)
    np.testing.assert_allclose(used, statistics_of(small_network, frame, mix), rtol=1e-2, atol=1e-3)
    for hold, statistics in ((0.0, used * 3 + 1), (1.0, used)):
        held, again = session.run(None, feed | {"statistics": statistics, "hold": np.float32([hold])})
        assert np.abs(held.astype(int) - plain).max() <= (1 if hold else 0)
        np.testing.assert_allclose(again, used, rtol=1e-3, atol=1e-4)


def test_held_statistics_keep_what_stays_from_changing(small_model):
    """A white square comes in. With its statistics held, the far side of the picture is painted as before."""
    before, mix = picture(96, 256), np.float32([[0, 0.5, 0.5, 0]])
    before = cv2.GaussianBlur(before, (0, 0), 2)
    after = before.copy()
    after[20:76, :60] = 255
    session = ort.InferenceSession(small_model, providers=["CPUExecutionProvider"])
    first, statistics = session.run(None, {"frame": before[None], "style_weights": mix})
    feed = {"frame": after[None], "style_weights": mix}
    plain, _ = session.run(None, feed)
    held, used = session.run(None, feed | {"statistics": statistics, "hold": np.float32([1])})
    half, _ = session.run(None, feed | {"statistics": statistics, "hold": np.float32([0.5])})
    changes = [float(np.abs(p.astype(int) - first)[0, :, 200:].mean()) for p in (plain, half, held)]
    assert changes[0] > 1
    assert changes[2] < 0.05
    assert changes[2] < changes[1] < changes[0]
    np.testing.assert_allclose(used, statistics, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["small_model", "half_model"])
def test_the_second_graph_paints_what_the_first_does_with_statistics_held(name, request):
    """Of another frame, and with less to compute: no means, and no more than half of the operators."""
    path = request.getfixturevalue(name)
    content = held_model(path, read_metadata(path).held)
    whole, held = (ort.InferenceSession(model, providers=["CPUExecutionProvider"]) for model in (path, content))
    for mix in MIXES.values():
        feed = {"frame": picture(97, 131)[None], "style_weights": np.array([mix], np.float32)}
        feed["statistics"] = whole.run(["used_statistics"], feed | {"frame": picture(40, 52)[None]})[0]
        own = whole.run(["stylized"], feed)[0].astype(int)
        expected = whole.run(["stylized"], feed | {"hold": np.ones(1, np.float32)})[0].astype(int)
        found = held.run(None, feed)[0]
        assert np.abs(found - expected).max() <= (1 if name == "small_model" else 2)
        assert np.abs(found - expected).mean() < 0.2
        assert np.abs(own - expected).max() > 5 or mix[0] == 1
    kinds, others = (
        [node.op_type for node in graph.graph.node] for graph in (onnx.load_from_string(content), onnx.load(path))
    )
    assert "ReduceMean" not in kinds
    assert len(kinds) < len(others) / 2


def test_a_second_graph_that_paints_otherwise_is_refused(small_network, tmp_path, monkeypatch):
    hold = StyleNetwork.hold_entirely
    monkeypatch.setattr(StyleNetwork, "hold_entirely", lambda self, given, weights: hold(self, 1.5 * given, weights))
    with pytest.raises(VideoNSTError, match=r"paints otherwise where statistics are held entirely: .* at 64x64"):
        export_onnx(small_network, tmp_path / "model.onnx", styles=STYLES)
    assert not list(tmp_path.iterdir())


def test_file_holds_no_paths_of_this_machine(small_model):
    for content in (small_model.read_bytes(), base64.b64decode(read_metadata(small_model).held.model)):
        assert b".py" not in content
    assert str(Path.home()).encode() not in content


def test_metadata_round_trip(small_model):
    metadata = read_metadata(small_model)
    session = ort.InferenceSession(small_model, providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    assert ModelMetadata.from_properties(properties, "file") == metadata
    assert properties.items() == metadata.to_properties().items()
    assert (metadata.tier, metadata.style_names) == ("tiny", ("a", "b", "c"))
    assert (metadata.precision, metadata.opset) == ("fp32", 18)
    assert (metadata.styles[1].title, metadata.styles[1].artist, metadata.styles[1].year) == ("B", "Hokusai", "1831")
    assert (metadata.size.minimum, metadata.size.multiple) == (16, 1)
    assert (metadata.training.recipe["steps"], metadata.training.commit) == (7, "abc123")
    assert [(p.height, p.width) for p in metadata.parity] == [(64, 64), (97, 131), (180, 320)]
    assert all(p.maximum <= 1 and p.mean < 0.01 for p in metadata.parity)


def test_thumbnails_show_each_style(small_model):
    pictures = []
    for style in read_metadata(small_model).styles:
        kind, _, data = style.thumbnail.partition(",")
        assert kind == "data:image/jpeg;base64"
        pictures.append(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR))
    assert [p.shape for p in pictures] == [(96, 96, 3)] * 3
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 5


def test_load_network_restores_every_bit(small_model, small_network):
    loaded = load_network(small_model).state_dict()
    assert loaded.keys() == small_network.state_dict().keys()
    for name, value in small_network.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_load_network_of_half_model_is_rounded(half_model, small_network):
    loaded = load_network(half_model)
    assert torch.equal(loaded.bank, small_network.bank)
    assert torch.equal(loaded.stem.weight, small_network.stem.weight.half().float())


def test_export_leaves_the_network_as_it_is(small_network, half_model):
    assert {p.dtype for p in small_network.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in small_network.parameters())


@pytest.mark.parametrize("name", ["body.3.weight", "bank"])
def test_a_file_that_paints_differently_is_refused(small_network, tmp_path, monkeypatch, name):
    build = export.build_graph

    def corrupt(network: StyleNetwork, precision: str) -> onnx.ModelProto:
        model = build(network, precision)
        tensor = next(t for t in model.graph.initializer if t.name == name)
        values = onnx.numpy_helper.to_array(tensor).copy()
        values.flat[5] += 0.5
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
        return model

    monkeypatch.setattr(export, "build_graph", corrupt)
    target = tmp_path / "model.onnx"
    target.write_bytes(b"before")
    with pytest.raises(VideoNSTError, match=r"does not paint as torch does at 64x64: .*nothing was written"):
        export_onnx(small_network, target, styles=STYLES)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert target.read_bytes() == b"before"


def test_half_precision_limits_are_enforced(small_network, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "FP16_MEAN", 0.001)
    with pytest.raises(VideoNSTError, match=r"allowed is a mean of 0\.001"):
        export_onnx(small_network, tmp_path / "model.onnx", styles=STYLES, precision="fp16")
    assert not list(tmp_path.iterdir())


def test_half_precision_on_hardware_that_really_rounds(small_network):
    """ONNX Runtime's CPU provider convolves in fp32; torch rounds every result to half, as a GPU does."""
    half = copy.deepcopy(small_network).half()
    half.bank.data = small_network.bank.data
    frame = picture(48, 52)
    for mix in MIXES.values():
        painted = export.FrameNetwork(half).paint(frame, np.array(mix, np.float32))
        difference = np.abs(painted.astype(int) - paint(small_network, frame, mix))
        assert difference.mean() <= 0.5
        assert np.percentile(difference, 99.9) <= 4


def test_half_precision_that_would_overflow_is_refused(small_network, tmp_path):
    network = copy.deepcopy(small_network)
    network.body[2].weight.data *= 1e4  # invisible in fp32: the normalisation divides it out again
    with pytest.raises(VideoNSTError, match="too near to the 65504 that half precision holds"):
        export_onnx(network, tmp_path / "model.onnx", styles=STYLES, precision="fp16")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported(small_network, tmp_path):
    with pytest.raises(InputError, match="2 styles are described, the network has 3"):
        export_onnx(small_network, tmp_path / "x.onnx", styles=STYLES[:2])
    with pytest.raises(InputError, match=r"ending in \.onnx"):
        export_onnx(small_network, tmp_path / "x.pt", styles=STYLES)
    with pytest.raises(InputError, match="each with its own name"):
        export_onnx(small_network, tmp_path / "x.onnx", styles=[STYLES[0]] * 3)
    with pytest.raises(InputError, match="precision is 'int8'"):
        export_onnx(small_network, tmp_path / "x.onnx", styles=STYLES, precision="int8")
    assert not list(tmp_path.iterdir())


def test_target_that_cannot_be_written(small_network, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write the model"):
        export_onnx(small_network, tmp_path / "file" / "x.onnx", styles=STYLES)


def test_load_network_of_an_unknown_tier(small_model, tmp_path):
    model = onnx.load(small_model)
    next(p for p in model.metadata_props if p.key == "tier").value = '"huge"'
    onnx.save(model, tmp_path / "huge.onnx")
    with pytest.raises(InputError, match="unknown tier 'huge'"):
        load_network(tmp_path / "huge.onnx")
    next(p for p in model.metadata_props if p.key == "tier").value = '"fast"'
    onnx.save(model, tmp_path / "fast.onnx")
    with pytest.raises(InputError, match="do not fit tier fast"):
        load_network(tmp_path / "fast.onnx")


def test_describe_paintings():
    painting = Painting("wave", Path("wave.jpg"), "The Great Wave", "Hokusai", "1831", "CC0")
    (style,) = describe_paintings([painting])
    assert style == StyleInfo(name="wave", title="The Great Wave", artist="Hokusai", year="1831", licence="CC0")
