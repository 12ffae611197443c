"""Painting from CUDA graphs is painting without, with the processor and its memory in place of a GPU.

A session on the processor has no graphs. `Recording` asks of it what ONNX Runtime asks of one on a GPU: that graphs run
only in the thread that recorded them, one at a time, and with the addresses that they were recorded with.
"""

import gc
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from videonst.bench import speed
from videonst.bench.stages import BoundFrames
from videonst.cli import app
from videonst.engines import onnx, providers
from videonst.engines.cuda_graphs import GRAPHS
from videonst.engines.onnx import GRAPH_SIZES, OnnxEngine
from videonst.engines.providers import check_device
from videonst.errors import InputError
from videonst.frame import Frame
from videonst.styles import StyleMix
from videonst.temporal import Stabiliser, carry
from videonst.temporal.carry import carry_for
from videonst.temporal.flow import DisFlow

SIZES = ((48, 64), (40, 52), (33, 47), (64, 48), (36, 36), (52, 40))
MIXES = tuple(StyleMix.parse(text) for text in ("a", "b", "a:0.5,c:0.5", "c"))


class Recording:
    """A session of the processor, and an account of its runs.

    Attributes:
        recorded: thread and addresses of each graph.
        replays: of all graphs.
        stale: graphs do nothing when they are replayed.
        forgetful: they hold no statistics then.
        fails: after so many more runs all fail.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.recorded: dict[str, tuple[int, list[int]]] = {}
        self.replays = 0
        self.stale = self.forgetful = False
        self.fails = 10**9
        self._busy = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: ort.IOBinding, options: ort.RunOptions) -> None:
        assert self._busy.acquire(blocking=False), "two runs at once"
        try:
            self.fails -= 1
            if self.fails < 0:
                raise RuntimeError("CUDA failure 900")
            number = options.get_run_config_entry("gpu_graph_id")
            values = [*binding._bound_inputs.values(), *binding._bound_outputs.values()]
            here = threading.get_ident(), [value.data_ptr() for value in values]
            if number == "-1":
                assert not self.recorded or here[0] == next(iter(self.recorded.values()))[0]
            elif number in self.recorded:
                assert self.recorded[number] == here, "a graph of other buffers or of another thread"
                self.replays += 1
                if self.stale:
                    return
                if self.forgetful:
                    hold = binding._bound_inputs["hold"]
                    held = hold.numpy().copy()
                    hold.update_inplace(np.zeros_like(held))
                    self._session.run_with_iobinding(binding, options)
                    hold.update_inplace(held)
                    return
            else:
                self.recorded[number] = here
            self._session.run_with_iobinding(binding, options)
        finally:
            self._busy.release()


@pytest.fixture(scope="module")
def engine(small_model) -> OnnxEngine:
    return OnnxEngine(small_model, "cpu", threads=1)


@pytest.fixture
def sessions(monkeypatch) -> list[Recording]:
    """Those that graphs were to be recorded of."""
    real, opened = providers.open_session, []

    def open_session(model, device, threads=None, *, cuda_graphs=False):
        if not cuda_graphs:
            return real(model, device, threads)
        assert device == "cuda"
        opened.append(Recording(real(model, "cpu", 1)))
        return opened[-1]

    monkeypatch.setattr(onnx, "open_session", open_session)
    return opened


@pytest.fixture
def leaving(small_model, sessions) -> OnnxEngine:
    """An engine that takes the processor for a GPU."""
    engine = OnnxEngine(small_model, "cpu", threads=1)
    engine.memory, engine._device = "cpu", "cuda"
    return engine


def frames(count: int, size: tuple[int, int] = SIZES[0], seed: int = 0) -> list[Frame]:
    rng = np.random.default_rng(seed)
    return [
        Frame(cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), dtype=np.uint8), (0, 0), 2), pts=number)
        for number in range(count)
    ]


def test_a_graph_paints_what_the_engine_paints(leaving, sessions, engine):
    """Bit for bit, while frames, weights and statistics change and results are held; statistics as arrays, as left on
    the device, and none."""
    assert leaving.capture_graphs(64, 48)
    assert [list(session.recorded) for session in sessions] == 2 * [[str(number) for number in range(GRAPHS)]]
    before = [session.replays for session in sessions]
    _, on_device = leaving._leave("cpu", frames(1, seed=9)[0].pixels, MIXES[1].weights("abc"), None, 0.0)
    statistics, held, kept = None, [], []
    for number, frame in enumerate(frames(12)):
        mix, hold = MIXES[number // 3 % len(MIXES)], (0.0, 0.4, 1.0)[number % 3]
        given = (None, statistics, on_device)[number % 3] if number else None
        plain = given if given is None or isinstance(given, np.ndarray) else given.numpy()
        painting, used = leaving.stylize_on_device(frame, mix, given, hold)
        expected, statistics = engine.stylize_holding(frame, mix, plain, hold)
        np.testing.assert_array_equal(used, statistics)
        held = [*held[-3:], (painting, expected.pixels)]
        kept.append((used, statistics.copy()))
        for one, other in held:
            np.testing.assert_array_equal(one.numpy()[0], other)
        for one, other in kept:
            np.testing.assert_array_equal(one, other)
    whole, entirely = (session.replays - count for session, count in zip(sessions, before, strict=True))
    assert (whole, entirely) == (8, 4)


def test_held_paintings_are_never_written_over(leaving, sessions, engine):
    """Where all graphs rest, frames are painted without; what is let go is used again."""
    assert leaving.capture_graphs(64, 48)
    session, _ = sessions
    before, given = session.replays, frames(3 * GRAPHS)
    held = [leaving.stylize_on_device(frame, MIXES[0], None, 0.0)[0] for frame in given[: GRAPHS + 3]]
    assert session.replays - before == GRAPHS
    places = {painting.data_ptr() for painting in held}
    assert len(places) == GRAPHS + 3
    del held[1], held[2]
    gc.collect()
    more = [leaving.stylize_on_device(frame, MIXES[0], None, 0.0)[0] for frame in given[-2:]]
    assert session.replays - before == GRAPHS + 2
    assert {painting.data_ptr() for painting in more} < places
    rest = [given[index] for index in range(GRAPHS + 3) if index not in (1, 3)]
    for painting, frame in zip([*held, *more], [*rest, *given[-2:]], strict=True):
        np.testing.assert_array_equal(painting.numpy()[0], engine.stylize(frame, MIXES[0]).pixels)


def test_several_threads_paint_sizes_that_change(leaving, sessions, engine):
    """Some of them recorded, some not."""
    for height, width in SIZES[:3]:
        assert leaving.capture_graphs(width, height)
    given = [frames(1, size, seed)[0] for seed in range(5) for size in SIZES]

    def painted(frame: Frame) -> tuple[Any, Any, Any]:
        first, used = leaving.stylize_on_device(frame, MIXES[frame.height % 4], None, 0.0)
        second, _ = leaving.stylize_on_device(frame, MIXES[0], used, 0.8)
        return first, used, second

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(painted, given, timeout=120))
    assert [bool(session.recorded) for session in sessions] == [True] * 6
    assert sum(session.replays for session in sessions) > 3 * GRAPHS
    for frame, (first, used, second) in zip(given, found, strict=True):
        expected, statistics = engine.stylize_holding(frame, MIXES[frame.height % 4], None, 0.0)
        np.testing.assert_array_equal(first.numpy()[0], expected.pixels)
        np.testing.assert_array_equal(used if isinstance(used, np.ndarray) else used.numpy(), statistics)
        again, _ = engine.stylize_holding(frame, MIXES[0], statistics, 0.8)
        np.testing.assert_array_equal(second.numpy()[0], again.pixels)


def test_the_sizes_asked_for_last_are_kept(leaving, sessions, engine):
    """What was painted in one that is given up stays."""
    kept = []
    for height, width in SIZES:
        assert leaving.capture_graphs(width, height)
        frame = frames(1, (height, width))[0]
        kept.append((frame, leaving.stylize_on_device(frame, MIXES[0], None, 0.0)[0]))
    assert list(leaving.graphs) == list(SIZES[-GRAPH_SIZES:])
    assert leaving.capture_graphs(*SIZES[-GRAPH_SIZES][::-1])  # it is there
    assert len(sessions) == 2 * len(SIZES)
    assert leaving.capture_graphs(*SIZES[0][::-1])
    assert len(sessions) == 2 * len(SIZES) + 2
    assert list(leaving.graphs) == [*SIZES[-GRAPH_SIZES + 2 :], SIZES[-GRAPH_SIZES], SIZES[0]]
    for frame, painting in kept:
        np.testing.assert_array_equal(painting.numpy()[0], engine.stylize(frame, MIXES[0]).pixels)
        again, _ = leaving.stylize_on_device(frame, MIXES[0], None, 0.0)
        np.testing.assert_array_equal(again.numpy(), painting.numpy())


def test_a_graph_that_fails_on_the_way_is_not_used_again(leaving, sessions, engine, caplog):
    """The frame is painted without, one line says so, and it may be recorded anew."""
    assert leaving.capture_graphs(64, 48)
    given = frames(4)
    leaving.stylize_on_device(given[0], MIXES[0], None, 0.0)
    sessions[0].fails = 0
    with caplog.at_level(logging.WARNING):
        found = [leaving.stylize_on_device(frame, MIXES[0], None, 0.0)[0].numpy()[0] for frame in given]
    for frame, pixels in zip(given, found, strict=True):
        np.testing.assert_array_equal(pixels, engine.stylize(frame, MIXES[0]).pixels)
    assert [record.getMessage() for record in caplog.records] == [
        "paintings are made without CUDA graphs from now on: CUDA failure 900"
    ]
    assert leaving.capture_graphs(64, 48)
    assert sessions[2].recorded


def stale(session: Recording) -> None:
    session.stale = True


def forgetful(session: Recording) -> None:
    session.forgetful = True


def fails(session: Recording) -> None:
    session.fails = 5


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (stale, "levels off"),
        (forgetful, "levels off"),
        (fails, "CUDA failure 900"),
        ("old", "need ONNX Runtime 1.31"),
        ("memory", "not left"),
    ],
)
def test_graphs_that_do_not_work_are_not_used(fault, reason, leaving, sessions, engine, monkeypatch, caplog):
    if fault == "old":
        monkeypatch.setattr(ort, "__version__", "1.30.2")
    elif fault == "memory":
        leaving.memory = None
    else:
        monkeypatch.setattr(Recording, "__init__", lambda self, session: (REAL(self, session), fault(self))[0])
    before = threading.active_count()
    with caplog.at_level(logging.WARNING):
        assert not leaving.capture_graphs(64, 48)
    (record,) = caplog.records
    assert record.getMessage().startswith("frames of 64x48 are painted without CUDA graphs: ")
    assert reason in record.getMessage()
    assert not leaving.graphs
    assert threading.active_count() == before
    frame = frames(1)[0]
    painting, _ = leaving.stylize_on_device(frame, MIXES[0], None, 0.0)
    np.testing.assert_array_equal(painting.numpy()[0], engine.stylize(frame, MIXES[0]).pixels)


REAL = Recording.__init__


def test_only_cuda_has_graphs(engine):
    with pytest.raises(InputError, match="CUDA graphs are for the device cuda; this engine paints on cpu"):
        engine.capture_graphs(64, 48)


def test_the_session_is_opened_for_graphs(monkeypatch):
    given = []

    class Session:
        def __init__(self, *_: object, providers: list[tuple[str, dict[str, str]]], **__: object) -> None:
            given.extend(providers)

        def get_providers(self) -> list[str]:
            return [name for name, _ in given]

    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(providers, "_load_libraries", lambda device: "")
    providers.open_session(b"", "cuda", cuda_graphs=True)
    assert given.pop()[1]["enable_cuda_graph"] == "1"
    providers.open_session(b"", "cuda")
    assert "enable_cuda_graph" not in given.pop()[1]


def pan(picture: np.ndarray, size: tuple[int, int], count: int) -> list[Frame]:
    height, width = size
    return [
        Frame(np.ascontiguousarray(picture[60 + n : 60 + n + height, 40 + 2 * n : 40 + 2 * n + width]), pts=n)
        for n in range(count)
    ]


@pytest.fixture
def _untried() -> Iterator[None]:
    carry._tried.cache_clear()
    yield
    carry._tried.cache_clear()


@pytest.mark.usefixtures("_untried")
@pytest.mark.parametrize("painters", [1, 3])
def test_a_film_comes_out_the_same(painters, leaving, sessions, portrait):
    """Steadied, with sizes that change, one of them recorded, frame by frame and several at once; as without graphs."""
    clip = [*pan(portrait, (48, 64), 6), *pan(portrait, (40, 52), 3), *pan(portrait, (48, 64), 6)]
    clip = [Frame(frame.pixels, pts=number) for number, frame in enumerate(clip)]

    def steadied() -> list[np.ndarray]:
        stabiliser = Stabiliser(leaving, flow=DisFlow("fast", side=36), painters=painters)
        mixes = [StyleMix.parse(text) for text in ("a", "a:0.95,b:0.05", "a:0.9,b:0.1")]
        taken = [stabiliser.take(frame, mixes[number % 3]) for number, frame in enumerate(clip)]
        return [frame.pixels for frames in (*taken, stabiliser.finish()) for frame in frames]

    assert carry_for(leaving, keep_colour=False).on_device
    expected = steadied()
    assert leaving.capture_graphs(64, 48)
    before = [session.replays for session in sessions]
    found = steadied()
    whole, entirely = (session.replays - count for session, count in zip(sessions, before, strict=True))
    assert whole + entirely >= 8
    assert entirely > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_network_is_measured_by_its_graph(leaving, sessions):
    given = frames(3)
    assert leaving.capture_graphs(64, 48)
    before = sessions[1].replays
    bound = BoundFrames(leaving, given, MIXES[2], memory="cpu")
    _, statistics = leaving.stylize_holding(given[0], MIXES[2], None, 0)
    for frame in (given[1], given[2], given[0]):
        bound.upload()
        bound.compute()
        held, _ = leaving.stylize_holding(frame, MIXES[2], statistics, 1)
        np.testing.assert_array_equal(bound.download(), held.pixels)
    assert sessions[1].replays - before == 3


def test_a_row_says_what_painted(leaving, sessions, monkeypatch, tmp_path):
    """From file to file as well."""
    monkeypatch.setattr(speed, "peak_of_convert", lambda clip, target, *_, **__: target.touch())
    monkeypatch.setattr(speed, "MEMORY", {"cuda": "cpu"})
    monkeypatch.setattr(speed, "measure_limits", lambda *_: None)
    monkeypatch.setattr(speed, "OnnxEngine", lambda model, device: leaving)
    rows = [
        next(speed.measure_speed(["small"], [(64, 48)], rounds=1, round_seconds=0.01, flow="fast", cuda_graphs=graphs))
        for graphs in (False, True)
    ]
    assert [row.device for row in rows] == ["cuda", "cuda graphs"]
    assert rows[1].stages["network"].frames >= 3
    assert sum(session.replays for session in sessions) > 48  # 36 of them when they were recorded


def test_graphs_of_another_device_are_refused_in_a_line(small_model):
    result = CliRunner().invoke(app, ["bench", "speed", "-m", str(small_model), "--device", "cpu", "--cuda-graphs"])
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == "CUDA graphs are for the device cuda; this engine paints on cpu"


gpu = pytest.mark.skipif(not check_device("cuda").works, reason="no CUDA here")


@gpu
def test_graphs_on_a_gpu():
    """Replay gives what the same session gives without a graph, bit for bit, and the engine's own session nearly."""
    engine = OnnxEngine("tiny", "cuda")
    mixes = [StyleMix.parse(text) for text in ("udnie", "starry_night:0.5,udnie:0.5")]
    assert engine.capture_graphs(128, 96)
    graphs = engine.graphs[96, 128]
    plain = graphs.borrow()
    assert plain is not None
    names, used, held = engine.metadata.style_names, None, []
    for number, frame in enumerate(frames(10, (96, 128))):
        mix, hold = mixes[number // 4 % 2], (0.0, 0.5, 1.0)[number % 3]
        feed = onnx._feed(frame.pixels, mix.weights(names), used, hold)
        painted = graphs.paint(feed)
        assert painted is not None
        plain.put(feed)
        plain.run(plain._plain)
        expected = {name: value.numpy() for name, value in plain.outputs().items()}
        held = [*held[-3:], (painted[0], expected["stylized"])]
        for one, other in held:
            np.testing.assert_array_equal(one.numpy(), other)
        np.testing.assert_array_equal(painted[1], expected["used_statistics"])
        own, _ = engine.stylize_holding(frame, mix, used, hold)
        wrong = np.abs(own.pixels.astype(int) - painted[0].numpy()[0])
        assert np.percentile(wrong, 99.9) <= 2
        used = painted[1]


@gpu
def test_graphs_on_a_gpu_in_threads_and_sizes_that_change():
    engine, plain, mix = OnnxEngine("tiny", "cuda"), OnnxEngine("tiny", "cuda"), StyleMix.parse("udnie")
    sizes = [(96, 128), (64, 96), (120, 72)]
    for height, width in sizes[:2]:
        assert engine.capture_graphs(width, height)
    given = [frames(1, size, seed)[0] for seed in range(10) for size in sizes]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda frame: engine.stylize_on_device(frame, mix, None, 0.0)[0], given, timeout=120))
    assert not any(graphs.failed for graphs in engine.graphs.values())
    for frame, painting in zip(given, found, strict=True):
        wrong = np.abs(plain.stylize(frame, mix).pixels.astype(int) - painting.numpy()[0])
        assert np.percentile(wrong, 99.9) <= 2


@gpu
def test_a_film_on_a_gpu(portrait):
    engine, mix = OnnxEngine("tiny", "cuda"), StyleMix.parse("udnie")
    clip = pan(portrait, (96, 128), 10)

    def steadied() -> list[np.ndarray]:
        stabiliser = Stabiliser(engine, flow=DisFlow("fast", side=48))
        return [stabiliser.stylize(frame, mix).pixels.astype(int) for frame in clip]

    expected = steadied()
    assert engine.capture_graphs(128, 96)
    for one, other in zip(steadied(), expected, strict=True):
        assert np.percentile(np.abs(one - other), 99.9) <= 2
    assert not engine.graphs[96, 128].failed
