"""Carrying the history on a device does what OpenCV does, on ONNX Runtime's CPU provider in the place of a GPU."""

import json
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest

from videonst.engines import OnDevice, onnx, providers
from videonst.engines.onnx import OnnxEngine
from videonst.engines.providers import check_device
from videonst.frame import Frame
from videonst.models import find_model
from videonst.styles import StyleMix
from videonst.temporal import Stabiliser, carry
from videonst.temporal.carry import DeviceCarry, HostCarry, Way, carry_for, on_host
from videonst.temporal.flow import DisFlow

MIX = StyleMix.parse("a")
SIZE = (72, 96)


@pytest.fixture(autouse=True)
def _untried() -> Iterator[None]:
    carry._tried.cache_clear()
    yield
    carry._tried.cache_clear()


@pytest.fixture(scope="module")
def device() -> DeviceCarry:
    return DeviceCarry("cpu")


@pytest.fixture(scope="module")
def engine(small_model) -> OnnxEngine:
    return OnnxEngine(small_model, "cpu", threads=1)


@pytest.fixture(scope="module")
def leaving(small_model) -> OnnxEngine:
    """The same, taken for an engine with a memory of its own."""
    engine = OnnxEngine(small_model, "cpu", threads=1)
    engine.memory = "cpu"
    return engine


def smooth(height: int, width: int, channels: int, seed: int, amplitude: float = 1.0) -> np.ndarray:
    """Waves of some pixels, float32 (height, width, channels), about -amplitude to amplitude."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, channels))
    waves = cv2.GaussianBlur(noise, (0, 0), 2).reshape(height, width, channels)
    return (amplitude * waves / np.abs(waves).max()).astype(np.float32)


def scene(
    height: int, width: int, cells: tuple[int, int], follow: float, seed: int
) -> tuple[np.ndarray, np.ndarray, Way]:
    """A painting, a history that differs from it, and a way that leaves the frame at the borders and stands still in
    places."""
    painting = np.rint(128 + smooth(height, width, 3, seed, 100)).astype(np.uint8)
    history = (128 + smooth(height, width, 3, seed, 90) + smooth(height, width, 3, seed + 1, 40)).astype(np.float32)
    motion = smooth(*cells, 2, seed + 2, 6)
    motion[: cells[0] // 3, : cells[1] // 3] = 0
    trust = np.clip(0.6 + smooth(*cells, 1, seed + 3, 0.8)[..., 0], 0, 1)
    return painting, history, Way(motion, trust, follow)


@pytest.mark.parametrize("follow", [0.0, 0.7])
@pytest.mark.parametrize(
    ("size", "cells"), [((72, 96), (36, 48)), ((61, 47), (31, 24)), ((40, 64), (40, 64)), ((32, 24), (48, 40))]
)
def test_a_device_carries_as_the_processor_does(device, size, cells, follow):
    """At odd sizes, where the working resolution is that of the frame, and where it is finer."""
    painting, history, way = scene(*size, cells, follow, seed=size[0])
    host = HostCarry()
    expected, expected_shown = host.merge(painting, host.move(history, way), way, 0.9)
    carried, shown = device.merge(painting, device.move(history, way), way, 0.9)
    wrong = np.abs(on_host(carried) - expected)
    assert np.abs(expected - painting).mean() > 5  # much was carried
    assert np.percentile(wrong, 99.9) < 1
    assert wrong.mean() < 0.05
    assert np.abs(shown.astype(int) - expected_shown).max() <= 2
    np.testing.assert_array_equal(shown, np.rint(on_host(carried)).astype(np.uint8))


def test_what_stands_still_is_copied_exactly(device):
    """A quarter of a level survives; bicubic sampling at places rounded to float does not give it back."""
    rng = np.random.default_rng(0)
    painting = rng.integers(100, 110, (*SIZE, 3)).astype(np.uint8)
    history = painting + rng.integers(-32, 33, (*SIZE, 3)).astype(np.float32) / 4
    motion = np.zeros((36, 48, 2), np.float32)
    motion[:, 24:] = 1.3, 0.4
    carried, _ = device.merge(painting, history, Way(motion, np.ones((36, 48), np.float32), 0.0), 1.0)
    np.testing.assert_array_equal(on_host(carried)[:, :46], history[:, :46])
    assert np.abs(on_host(carried) - history)[:, 52:].mean() > 1


def test_a_frame_that_repeats_settles_as_on_the_processor(device):
    painting, history, way = scene(*SIZE, (36, 48), 0.0, seed=3)
    host = HostCarry()
    merged, _ = host.merge(painting, host.move(history, way), way, 0.9)
    expected, shown = host.settle(painting, merged.copy(), 0.9)
    found, found_shown = device.settle(painting, merged, 0.9)
    np.testing.assert_allclose(on_host(found), expected, atol=1e-3)
    assert np.abs(found_shown.astype(int) - shown).max() <= 1


def pan(picture: np.ndarray, count: int, light: tuple[float, ...] = ()) -> list[Frame]:
    """A view that moves over the picture with camera noise, some frames in another light."""
    height, width = SIZE
    rng = np.random.default_rng(1)
    frames = []
    for index in range(count):
        y, x = 100 + index, 100 + 3 * index
        view = picture[y : y + height, x : x + width].astype(float) + rng.normal(0, 1.5, (*SIZE, 3))
        view *= dict(enumerate(light)).get(index, 1.0)
        frames.append(at(index, np.clip(np.rint(view), 0, 255).astype(np.uint8)))
    return frames


def at(index: int, pixels: np.ndarray) -> Frame:
    return Frame(pixels, pts=index, time_base=Fraction(1, 25))


def steadied(engine: OnnxEngine, steady: float = 0.75) -> Stabiliser:
    return Stabiliser(engine, steady=steady, flow=DisFlow("fast", side=36))


def assert_alike(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        wrong = np.abs(one.astype(int) - other)
        assert (wrong > 2).mean() < 0.001, index
        assert wrong.mean() < 0.2, index


CLIPS = {
    "moving": lambda picture: ([(f, MIX) for f in pan(picture, 8)]),
    "the mixture changes": lambda picture: [
        (frame, StyleMix.parse(mix))
        for frame, mix in zip(pan(picture, 6), ["a", "a", "a:0.95,b:0.05", "a:0.9,b:0.1", "b", "b"], strict=True)
    ],
    "the light changes": lambda picture: [(f, MIX) for f in pan(picture, 7, (1, 1, 1, 1.1, 1.2, 1.2))],
    "a cut": lambda picture: [
        (f, MIX) for f in (*pan(picture, 4), *(at(4 + i, 255 - f.pixels // 2) for i, f in enumerate(pan(picture, 3))))
    ],
    "frames repeat": lambda picture: [
        (at(i, f.pixels), MIX) for i, f in enumerate(f for f in pan(picture, 4) for _ in range(2))
    ],
    "other sizes": lambda picture: [
        (at(i, np.ascontiguousarray(f.pixels[: 72 - 8 * (i // 3)])), MIX) for i, f in enumerate(pan(picture, 6))
    ],
}


@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
def test_a_clip_comes_out_alike(clip, engine, leaving, portrait):
    frames = clip(portrait)
    host, device = steadied(engine), steadied(leaving)
    expected, found, painted = [], [], []
    for frame, mix in frames:
        expected.append(host.stylize(frame, mix).pixels)
        found.append(device.stylize(frame, mix).pixels)
        painted.append((device.last_painted, host.last_painted))
    assert_alike(found, expected)
    assert all(one == other for one, other in painted)
    if clip is CLIPS["moving"]:
        alone = [engine.stylize(frame, mix).pixels.astype(int) for frame, mix in frames[1:]]
        assert np.abs(np.stack(alone) - np.stack(found[1:])).mean() > 1  # the history was used


def test_paintings_and_history_stay_on_the_device(leaving, portrait, monkeypatch):
    """From the second frame of a scene on, only what is shown comes down."""
    steady = steadied(leaving)
    frames = pan(portrait, 4)
    steady.stylize(frames[0], MIX)
    down, brought = [], []
    monkeypatch.setattr(carry, "run_bound", lambda *given, into: brought.append(into) or REAL(*given, into))
    monkeypatch.setattr(carry, "on_host", lambda picture: down.append(picture) or on_host(picture))
    monkeypatch.setattr("videonst.temporal.stabiliser.on_host", carry.on_host)
    monkeypatch.setattr(OnnxEngine, "stylize_holding", lambda *_: pytest.fail("painted into the processor's memory"))
    steady.stylize(frames[1], MIX)
    down.clear()
    brought.clear()
    for frame in frames[2:]:
        steady.stylize(frame, MIX)
    assert not down
    assert [{name: array.dtype for name, array in into.items()} for into in brought] == [{"shown": np.uint8}] * 2
    past = steady._past
    assert past is not None
    kept = past.painted.result().painting, past.steadied.result().history, past.held
    assert not any(isinstance(value, np.ndarray) for value in kept)


def test_what_does_not_steady_is_the_engine_alone(engine, leaving, portrait):
    """Knob and strength at 0, kept colours, the first frame: bit for bit as on the processor."""
    frames = pan(portrait, 3)
    for mix, steady in ((MIX, 0.0), (MIX.with_strength(0), 0.75), (StyleMix.parse("a", keep_colour=True), 0.75)):
        host, device = steadied(engine, steady), steadied(leaving, steady)
        for frame in frames:
            np.testing.assert_array_equal(device.stylize(frame, mix).pixels, host.stylize(frame, mix).pixels)
    assert carry_for(leaving, keep_colour=True) is carry_for(engine, keep_colour=False)
    np.testing.assert_array_equal(
        steadied(leaving).stylize(frames[0], MIX).pixels, engine.stylize(frames[0], MIX).pixels
    )


def test_going_on_from_a_state_gives_the_same_frames(leaving, portrait):
    frames = pan(portrait, 6)
    whole, first, second = steadied(leaving), steadied(leaving), steadied(leaving)
    expected = [whole.stylize(f, MIX).pixels for f in frames][3:]
    for frame in frames[:3]:
        first.stylize(frame, MIX)
    state = first.state()
    assert {type(value) for value in state.values()} <= {np.ndarray, list, bool, float}
    assert state["history"].shape == state["painting"].shape == frames[0].pixels.shape
    kept = {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in state.items()}
    for frame in frames[3:]:  # what was handed out does not change
        first.stylize(frame, MIX)
    assert all(np.array_equal(state[key], value) for key, value in kept.items())
    second.restore(kept)
    for frame, pixels in zip(frames[3:], expected, strict=True):
        np.testing.assert_array_equal(second.stylize(frame, MIX).pixels, pixels)


def test_the_history_goes_along_to_another_engine(small_model, engine, leaving, portrait):
    """From a device to the processor, back, and to another engine on the device, as quality control may switch."""
    other = OnnxEngine(small_model, "cpu", threads=1)
    other.memory = "cpu"
    frames = pan(portrait, 8)
    device, host = steadied(leaving), steadied(engine)
    twin = OnnxEngine(small_model, "cpu", threads=1)
    found, expected = [], []
    for frame, one, plain in zip(
        frames,
        (leaving, leaving, engine, engine, leaving, leaving, other, other),
        (engine, engine, twin, twin, engine, engine, twin, twin),
        strict=True,
    ):
        device.engine, host.engine = one, plain
        found.append(device.stylize(frame, MIX).pixels)
        expected.append(host.stylize(frame, MIX).pixels)
    assert_alike(found, expected)


def test_a_device_that_fails_on_the_way_is_left_alone(engine, leaving, portrait, monkeypatch, caplog):
    """The frame it failed on and all after it are steadied on the processor; one line says so."""
    frames = pan(portrait, 6)
    host, device = steadied(engine), steadied(leaving)
    expected = [host.stylize(f, MIX).pixels for f in frames]
    found = [device.stylize(f, MIX).pixels for f in frames[:3]]
    bound, failed = carry.run_bound, []

    def failing(session, feed, outputs, memory, into):
        failed.append(outputs)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(carry, "run_bound", failing)
    with caplog.at_level(logging.WARNING):
        found += [device.stylize(f, MIX).pixels for f in frames[3:5]]
        monkeypatch.setattr(carry, "run_bound", bound)
        found.append(device.stylize(frames[5], MIX).pixels)
    assert_alike(found, expected)
    assert len(failed) == 1
    assert [r.getMessage() for r in caplog.records] == [
        "pictures are steadied on the processor, as cpu does not do it: out of memory"
    ]


def wrong(session, feed, outputs, memory, into) -> list[OnDevice]:
    """As if the picture came from one pixel further right."""
    return REAL(session, feed | {"motion": feed["motion"] + 1}, outputs, memory, into)


REAL = carry.run_bound


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda monkeypatch: monkeypatch.setattr(carry, "run_bound", wrong), "levels off"),
        (lambda monkeypatch: monkeypatch.setattr(carry, "GRAPH", b"no graph"), "does not work"),
    ],
    ids=["computes wrongly", "cannot load it"],
)
def test_a_device_that_does_not_carry_is_not_used(fault, reason, engine, leaving, portrait, monkeypatch, caplog):
    fault(monkeypatch)
    frames = pan(portrait, 3)
    host, device = steadied(engine), steadied(leaving)
    with caplog.at_level(logging.WARNING):
        for frame in frames:
            np.testing.assert_array_equal(device.stylize(frame, MIX).pixels, host.stylize(frame, MIX).pixels)
    (record,) = caplog.records
    assert reason in record.getMessage()


def test_the_engine_leaves_what_it_paints(leaving, portrait):
    """Painting and statistics, first without and then with those of a frame before."""
    first, second = pan(portrait, 2)
    painting, used = leaving.stylize_on_device(first, MIX, None, 0.0)
    expected, statistics = leaving.stylize_holding(first, MIX, None, 0.0)
    np.testing.assert_array_equal(on_host(painting), expected.pixels)
    np.testing.assert_array_equal(used.numpy(), statistics)
    painting, _ = leaving.stylize_on_device(second, MIX, used, 0.9)
    expected, _ = leaving.stylize_holding(second, MIX, statistics, 0.9)
    np.testing.assert_array_equal(on_host(painting), expected.pixels)
    assert not np.array_equal(expected.pixels, leaving.stylize(second, MIX).pixels)


@pytest.mark.skipif(not check_device("cuda").works, reason="no CUDA here")
def test_on_a_gpu(portrait):
    """A shipped model, so that neither torch nor onnx is needed there."""
    engine, mix = OnnxEngine("tiny", "cuda"), StyleMix.parse("udnie")
    assert engine.memory == "cuda"
    device, host = steadied(engine), steadied(engine)
    frames, found, expected = pan(portrait, 6), [], []
    assert carry_for(engine, keep_colour=False).on_device
    for frame in frames:
        found.append(device.stylize(frame, mix).pixels)
        engine.memory = None
        expected.append(host.stylize(frame, mix).pixels)
        engine.memory = "cuda"
    assert_alike(found, expected)


def off_the_device(model: Path, device: str, folder: Path) -> set[str]:
    """Operators of a model that a device leaves to the processor, and copies between the two, by ONNX Runtime's own
    account. What only computes shapes belongs on the processor."""
    options = providers._session_options(None)
    options.enable_profiling, options.profile_file_prefix = True, str(folder / model.stem)
    provider = providers.PROVIDERS[device], providers._provider_options(device, model)
    session = ort.InferenceSession(model, options, providers=[provider])
    known = {"uint8": np.uint8, "float": np.float32}
    feed = {
        value.name: np.ones(
            [size if isinstance(size, int) else 64 for size in value.shape], known[value.type[len("tensor(") : -1]]
        )
        for value in session.get_inputs()
    }
    session.run(None, feed)
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
    assert len(nodes) > 20
    return {
        node["op_name"]
        for node in nodes
        if node["op_name"].startswith("Memcpy")
        or (node["provider"] == "CPUExecutionProvider" and not all(map(is_shape, node["output_type_shape"])))
    }


def is_shape(tensor: dict[str, list[int]]) -> bool:
    ((kind, size),) = tensor.items()
    return kind == "int64" and np.prod(size) <= 8


def test_what_the_processor_computes_is_found(small_model, tmp_path):
    """Where it is the device itself: everything but the shapes."""
    found = off_the_device(small_model, "cpu", tmp_path)
    assert {"Conv", "FusedConv"} & found
    assert not {"Shape", "Squeeze"} & found
    assert "GridSample" in off_the_device(carry.GRAPH, "cpu", tmp_path)


@pytest.mark.skipif(not check_device("cuda").works, reason="no CUDA here")
def test_on_a_gpu_everything_is_computed_there(tmp_path):
    for tier in ("tiny", "fast", "full"):
        assert off_the_device(find_model(tier, precision="fp16"), "cuda", tmp_path) == set()
    assert off_the_device(carry.GRAPH, "cuda", tmp_path) == set()


@pytest.mark.parametrize("fault", ["fails", "is wrong", "leaves wrongly", "brings down wrongly"])
def test_a_memory_that_does_not_work_is_not_used(fault, engine, small_model, monkeypatch, caplog):
    assert engine.memory is None  # the processor's is no other
    monkeypatch.setattr(onnx, "MEMORY", {"cpu": "cpu"})
    assert OnnxEngine(small_model, "cpu", threads=1).memory == "cpu"

    def broken(session, feed, outputs, memory, into=None):
        if fault == "fails":
            raise RuntimeError("no such memory")
        if fault != "is wrong" and bool(into) is not (fault == "brings down wrongly"):
            return REAL(session, feed, outputs, memory, into)
        return REAL(session, feed | {"frame": 255 - feed["frame"]}, outputs, memory, into)

    monkeypatch.setattr(onnx, "run_bound", broken)
    with caplog.at_level(logging.WARNING):
        assert OnnxEngine(small_model, "cpu", threads=1).memory is None
    (record,) = caplog.records
    assert "paintings are not left in the memory of cpu" in record.getMessage()


def test_the_shipped_graph_is_what_the_export_room_builds():
    graph = pytest.importorskip("onnx", reason="needs the [train] extra")
    from videonst.export.carry import carry_graph

    shipped = graph.load(carry.GRAPH)
    assert shipped.graph == carry_graph().graph
    assert [entry.version for entry in shipped.opset_import] == [18]
