"""The floor: the least time in which this machine could compute a graph, from what the graph must do.

Roofline (Williams, Waterman, Patterson 2009), convolution by convolution: each takes no less than its multiplications
at the measured matrix rate, and no less than its bytes at the measured copy bandwidth. Bytes are those of its input,
its weights and its output, once each: normalisation needs all of an output before any of it can go on, so an output has
to be written and read again, while everything between convolutions could be fused into that.
"""

import base64
import functools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from videonst.engines.metadata import read_metadata
from videonst.engines.providers import MEMORY, open_session
from videonst.processor import thread_limit, usable_cores


@dataclass(frozen=True)
class Convolution:
    """What one convolution must do.

    Attributes:
        kind: of its arithmetic, "fp32", "fp16" or "int8".
        macs: multiplications with addition.
        moved: bytes.
    """

    kind: str
    macs: int
    moved: int


@dataclass(frozen=True)
class Limits:
    """What the processor or a device can do, measured.

    Attributes:
        rates: multiplications with addition a second, by kind of arithmetic.
        copy: bytes a second, read and written together, by all cores; of a device in its memory.
    """

    rates: dict[str, float]
    copy: float


def count_convolutions(model: Path, size: tuple[int, int]) -> list[Convolution]:
    """The convolutions of a model file as ONNX Runtime runs them on the CPU for a frame of (width, height); those in
    half precision, which it runs in single there, as the file has them."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = thread_limit()
    options.enable_profiling = True
    # Weights in their shape, 8 bits recognised, but no layout of the processor's, which rounds channels up.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_prepacking", "1")
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        slots = session.get_inputs()[1].shape[1]
        frame = np.zeros((1, size[1], size[0], 3), np.uint8)
        session.run(["stylized"], {"frame": frame, "style_weights": np.eye(1, slots, 1, dtype=np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
    found = [_convolution(node) for node in nodes if node["op_name"] in _CONVOLUTIONS]
    if read_metadata(model).precision == "fp16":
        return [Convolution("fp16", one.macs, one.moved // 2) for one in found]
    return found


def _convolution(node: dict[str, Any]) -> Convolution:
    tensors = [next(iter(tensor.items())) for tensor in node["input_type_shape"]]
    (kind, result), weights = next(iter(node["output_type_shape"][0].items())), tensors[_CONVOLUTIONS[node["op_name"]]]
    moved = [tensors[0], weights, (kind, result)]
    return Convolution(
        _KINDS[kind], prod(result) * prod(weights[1][1:]), sum(prod(shape) * _BYTES[of] for of, shape in moved)
    )


_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "QLinearConv": 3}
"""Operators, and which of their inputs is the weights."""

_BYTES = {"float": 4, "float16": 2, "uint8": 1, "int8": 1}
_KINDS = {"float": "fp32", "float16": "fp16", "uint8": "int8", "int8": "int8"}


def floor_ms(convolutions: Sequence[Convolution], limits: Limits | None) -> float | None:
    """The least time for a frame, milliseconds; None where the rate of such arithmetic is not known."""
    if limits is None or not limits.rates.keys() >= {c.kind for c in convolutions}:
        return None
    return 1000 * sum(max(c.macs / limits.rates[c.kind], c.moved / limits.copy) for c in convolutions)


def measure_limits(convolutions: Sequence[Convolution], device: str = "cpu") -> Limits | None:
    """Matrix rates of ONNX Runtime's own products, and copy bandwidth: of the processor at the size of the largest
    convolution, as what fits into the caches moves faster than what does not; of a device in its own memory. None where
    neither is known, as for CoreML."""
    if device == "cpu":
        return Limits(matrix_rates(), _copy_bandwidth(max(c.moved for c in convolutions) // 2))
    memory = MEMORY.get(device)
    return device_limits(memory) if memory else None


@functools.cache
def matrix_rates() -> dict[str, float]:
    """Of the processor, which computes no half precision: multiplications with addition a second, by kind of
    arithmetic; measured once."""
    return {kind: _matrix_rate(kind) for kind in ("fp32", "int8")}


@functools.cache
def device_limits(memory: str) -> Limits:
    """Of the device with that memory, measured once. It has to be large products and copies: what it takes to start one
    counts as well."""
    m, k, n = _DEVICE_PRODUCT
    rates = {}
    for kind in ("fp32", "fp16"):
        types, model = _PRODUCTS[kind]
        feed = {"a": np.ones((m, k), types[0]), "b": np.ones((k, n), types[1])}
        rates[kind] = m * k * n / _shortest(_bound(model, feed, memory))
    copied = np.ones(_DEVICE_COPY, np.uint8)
    return Limits(rates, 2 * len(copied) / _shortest(_bound(_COPY, {"a": copied}, memory)))


def _bound(model: str, feed: Mapping[str, npt.NDArray[Any]], memory: str) -> Callable[[], None]:
    """What runs a graph with everything in the device's memory, until it is done."""
    session = open_session(base64.b64decode(model), memory)
    binding: Any = session.io_binding()
    (result,) = session.get_outputs()
    for name, value in feed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, memory, 0))
    binding.bind_output(result.name, memory)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


_DEVICE_PRODUCT = (8192, 4096, 4096)
"""Rows, depth and columns: a third of a millisecond on the quickest GPUs of today."""

_DEVICE_COPY = 1 << 28
"""Bytes; no GPU has so large a cache."""


def _matrix_rate(kind: str) -> float:
    types, model = _PRODUCTS[kind]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = thread_limit()
    session = ort.InferenceSession(base64.b64decode(model), options, providers=["CPUExecutionProvider"])
    m, k, n = _PRODUCT[0] * usable_cores(), *_PRODUCT[1:]
    feed = {"a": np.ones((m, k), types[0]), "b": np.ones((k, n), types[1])}
    return m * k * n / _shortest(lambda: session.run(None, feed))


_PRODUCT = (1024, 576, 256)
"""Rows for each core, depth and columns: of a 3x3 convolution of 64 to 256 channels; on two cores larger and smaller
ones are no quicker, and many cores need many rows to be busy."""

# c = a b with free sizes, opset 18: MatMul in fp32 and fp16; MatMulInteger uint8 x int8 to int32. A copy by Identity.
_COPY = "CAgSADo8ChAKAWESAXAiCElkZW50aXR5EgRjb3B5WhAKAWESCwoJCAISBQoDEgFtYhAKAXASCwoJCAISBQoDEgFtQgQKABAS"
_PRODUCTS: dict[str, tuple[tuple[Any, Any], str]] = {
    "fp32": (
        (np.float32, np.float32),
        "CAg6WwoRCgFhCgFiEgFjIgZNYXRNdWwSAXBaFQoBYRIQCg4IARIKCgMSAW0KAxIBa1oVCgFiEhAKDggBEgoKAxIBawoDEgFuYhUKAWMSEAoOCAES"
        "CgoDEgFtCgMSAW5CBAoAEBI=",
    ),
    "fp16": (
        (np.float16, np.float16),
        "CAg6WwoRCgFhCgFiEgFjIgZNYXRNdWwSAXBaFQoBYRIQCg4IChIKCgMSAW0KAxIBa1oVCgFiEhAKDggKEgoKAxIBawoDEgFuYhUKAWMSEAoOCAoS"
        "CgoDEgFtCgMSAW5CBAoAEBI=",
    ),
    "int8": (
        (np.uint8, np.int8),
        "CAg6YgoYCgFhCgFiEgFjIg1NYXRNdWxJbnRlZ2VyEgFwWhUKAWESEAoOCAISCgoDEgFtCgMSAWtaFQoBYhIQCg4IAxIKCgMSAWsKAxIBbmIVCgFj"
        "EhAKDggGEgoKAxIBbQoDEgFuQgQKABAS",
    ),
}


def _copy_bandwidth(size: int) -> float:
    """Of all cores, each copying `size` bytes over their number, bytes a second read and written."""
    cores = usable_cores()
    part = max(size // cores, 1)
    pairs = [(np.ones(part, np.uint8), np.empty(part, np.uint8)) for _ in range(cores)]
    begin = threading.Barrier(cores)
    seconds = [0.0] * cores

    def copy(core: int) -> None:
        source, target = pairs[core]
        begin.wait(_PATIENCE)
        seconds[core] = _shortest(lambda: np.copyto(target, source))

    threads = [threading.Thread(target=copy, args=(core,), daemon=True) for core in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE)
    return sum(2 * len(source) / taken for (source, _), taken in zip(pairs, seconds, strict=True))


_PATIENCE = 60.0
"""Seconds."""


def _shortest(work: Callable[[], object]) -> float:
    """A rate is what the machine can do at its best: the shortest of `_TRIES`, after one to warm up."""
    work()
    found = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


_TRIES = 60
