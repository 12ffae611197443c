"""Page-locked memory is handed out, taken back and gone through, with ordinary memory in its place."""

import ctypes
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest

from videonst.engines import device_memory
from videonst.engines.device_memory import host_array, run_bound
from videonst.engines.onnx import OnnxEngine
from videonst.engines.page_locked import PageLocked
from videonst.engines.providers import PROBE_MODEL, check_device, open_session
from videonst.frame import Frame
from videonst.styles import StyleMix


class Runtime:
    """CUDA's runtime library, as far as it is used; `most` is what it can lock."""

    def __init__(self, most: int = 2**30) -> None:
        self.most, self.pieces, self.errors_left = most, {}, 0

    def cudaHostAlloc(self, address, size: int, flags: int) -> int:  # noqa: N802
        if sum(map(len, self.pieces.values())) + size > self.most:
            self.errors_left += 1
            return 2
        piece = (ctypes.c_ubyte * size)()
        address._obj.value = ctypes.addressof(piece)
        self.pieces[ctypes.addressof(piece)] = piece
        return 0

    def cudaFreeHost(self, address: int) -> int:  # noqa: N802
        del self.pieces[address]
        return 0

    def cudaGetLastError(self) -> int:  # noqa: N802
        self.errors_left = 0
        return 2


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_when_nobody_holds_it():
    pool = PageLocked(Runtime())
    first, second = (pool.array((1, 4, 6, 3), np.uint8) for _ in range(2))
    places = {address(first), address(second)}
    assert len(places) == 2
    view = first[0, 1:, ::2]
    kept = ort.OrtValue.ortvalue_from_numpy(second)
    del first, second
    third, fourth = (pool.array((72,), np.uint8) for _ in range(2))
    assert places.isdisjoint({address(third), address(fourth)})
    del view, kept
    assert {address(fifth) for fifth in [pool.array((6, 3), np.float32), pool.array((18,), np.float32)]} == places


def test_no_more_than_is_allowed_is_locked():
    runtime = Runtime()
    pool = PageLocked(runtime, most_bytes=100)
    held = pool.array((60,), np.uint8)
    pool.array((40,), np.uint8)  # let go at once
    assert pool.array((50,), np.uint8) is None
    small = pool.array((20,), np.uint8)  # in place of the 40
    assert small is not None
    assert sorted(map(len, runtime.pieces.values())) == [20, 60]
    assert pool.array((30,), np.uint8) is None
    assert address(held) in runtime.pieces
    del held
    assert pool.array((80,), np.uint8) is not None


def test_where_the_system_locks_no_more_there_is_none_and_no_error_is_left():
    runtime = Runtime(most=100)
    pool = PageLocked(runtime)
    assert pool.array((80,), np.uint8) is not None
    assert pool.array((120,), np.uint8) is None
    assert runtime.errors_left == 0
    assert pool.array((0,), np.uint8) is None


def test_threads_share_it():
    """Nothing that is held is written by anybody else."""
    pool = PageLocked(Runtime(), most_bytes=40_000)

    def work(seed: int) -> int:
        rng = np.random.default_rng(seed)
        held: list[tuple[np.ndarray, int]] = []
        for step in range(300):
            array = pool.array((int(rng.choice([100, 200, 300])),), np.uint8)
            if array is not None:
                value = (seed * 37 + step) % 251
                array[:] = value
                held.append((array, value))
            del held[: max(len(held) - int(rng.integers(0, 20)), 0)]
            assert all((array == value).all() for array, value in held)
        return len(held)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4), timeout=60))


@pytest.fixture
def pool(monkeypatch) -> PageLocked:
    """Every array, however small, travels through it, to and from the processor's memory."""
    pool = PageLocked(Runtime())
    monkeypatch.setattr(device_memory, "page_locked", lambda memory: pool)
    monkeypatch.setattr(device_memory, "LEAST_STAGED", 0)
    return pool


def frames() -> Iterator[Frame]:
    rng = np.random.default_rng(0)
    for size in ((32, 40), (32, 40), (48, 36), (32, 40), (48, 36), (24, 64)) * 2:
        yield Frame(rng.integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def engine(small_model) -> OnnxEngine:
    return OnnxEngine(small_model, "cpu", threads=1)


def test_frames_travel_through_it(small_model, engine, pool, monkeypatch):
    """Bit for bit as without, up and down, in several threads; what is handed out does not change afterwards, nor does
    what was given."""
    leaving = OnnxEngine(small_model, "cpu", threads=1)
    leaving.memory = "cpu"
    mix = StyleMix.parse("a:0.6,b:0.4")
    given = list(frames())
    before = [frame.pixels.copy() for frame in given]

    def painted(frame: Frame) -> list[np.ndarray]:
        flipped = frame.with_pixels(frame.pixels[:, ::-1])
        painting, used = leaving.stylize_on_device(frame, mix, None, 0.0)
        held, statistics = leaving.stylize_holding(flipped, mix, used, 0.7)
        plain = leaving.stylize(frame, mix)
        return [painting.numpy()[0], held.pixels, statistics, plain.pixels]

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(painted, given, timeout=60))
    monkeypatch.undo()
    for frame, pixels, outcome in zip(given, before, found, strict=True):
        plain, used = engine.stylize_holding(frame, mix, None, 0.0)
        held, statistics = engine.stylize_holding(frame.with_pixels(frame.pixels[:, ::-1]), mix, used, 0.7)
        for one, other in zip(outcome, (plain.pixels, held.pixels, statistics, plain.pixels), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(frame.pixels, pixels)


def test_what_comes_down_is_page_locked(small_model, pool):
    leaving = OnnxEngine(small_model, "cpu", threads=1)
    leaving.memory = "cpu"
    frame = next(frames())
    painted = leaving.stylize(frame, StyleMix.parse("a"))
    assert address(painted.pixels) in pool._runtime.pieces
    assert len(pool._runtime.pieces) == 3  # frame and weights went up


def test_where_there_is_no_more_frames_travel_without(small_model, engine, pool):
    pool._most = 5000
    leaving = OnnxEngine(small_model, "cpu", threads=1)
    leaving.memory = "cpu"
    kept = [leaving.stylize(frame, StyleMix.parse("a")).pixels for frame in frames()]
    assert sum(map(len, pool._runtime.pieces.values())) <= 5000
    for frame, pixels in zip(frames(), kept, strict=True):
        np.testing.assert_array_equal(engine.stylize(frame, StyleMix.parse("a")).pixels, pixels)


def test_it_is_tried_before_it_is_used(monkeypatch):
    assert device_memory._fault(PageLocked(Runtime()), "cpu") == ""
    assert device_memory._fault(PageLocked(Runtime(most=64)), "cpu") == "CUDA gives none"
    monkeypatch.setattr(device_memory, "run_bound", lambda *given, into: None)
    assert device_memory._fault(PageLocked(Runtime()), "cpu") == "a trial came back otherwise"


@pytest.mark.skipif(check_device("cuda").works, reason="CUDA works here")
def test_without_cuda_there_is_none_and_one_line_says_so(caplog):
    device_memory.page_locked.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            arrays = [host_array((100, 1000, 3), np.uint8, "cuda") for _ in range(2)]
    finally:
        device_memory.page_locked.cache_clear()
    assert [array.shape for array in arrays] == [(100, 1000, 3)] * 2
    (record,) = caplog.records
    assert "frames travel to and from cuda in ordinary memory" in record.getMessage()
    assert device_memory.page_locked("cpu") is None


def test_outputs_come_down_beside_those_that_are_left():
    session = open_session(PROBE_MODEL, "cpu", 1)
    into = np.full((1, 1, 4, 4), -1, np.float32)
    assert run_bound(session, {"x": np.ones_like(into)}, (), "cpu", into={"y": into}) == []
    assert (into == 2).all()
    (left,) = run_bound(session, {"x": into}, ("y",), "cpu")
    assert (left.numpy() == 4).all()


@pytest.mark.skipif(not check_device("cuda").works, reason="no CUDA here")
def test_on_a_gpu():
    pool = device_memory.page_locked("cuda")
    assert pool is not None
    session = open_session(PROBE_MODEL, "cuda")
    rng = np.random.default_rng(0)
    kept = []

    def there_and_back(_: int) -> None:
        array = rng.integers(-1000, 1000, (1, 1, 500, 700)).astype(np.float32)
        (left,) = run_bound(session, {"x": array}, ("y",), "cuda")
        down = host_array(array.shape, np.float32, "cuda")
        run_bound(session, {"x": left}, (), "cuda", into={"y": down})
        with lock:
            kept.append((down, 4 * array))

    lock = threading.Lock()
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(there_and_back, range(30), timeout=60))
    for down, expected in kept:
        np.testing.assert_array_equal(down, expected)
