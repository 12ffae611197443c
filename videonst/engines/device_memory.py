"""Running sessions on arrays in the memory of a device, and bringing arrays there and back."""

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from videonst.engines import OnDevice
from videonst.engines.page_locked import PageLocked, cuda_runtime
from videonst.engines.providers import PROBE_MODEL, one_line, open_session

log = logging.getLogger(__name__)

LEAST_STAGED = 64 * 2**10 + 1
"""Bytes from which an array goes up through page-locked memory. For 64 KB or less of ordinary memory CUDA does not wait
either (CUDA C++ Programming Guide, "Concurrent Execution between Host and Device")."""

_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


def run_bound(
    session: ort.InferenceSession,
    feed: Mapping[str, npt.NDArray[Any] | OnDevice],
    outputs: Sequence[str],
    memory: str,
    into: Mapping[str, npt.NDArray[Any]] | None = None,
) -> list[OnDevice]:
    """Runs a session with inputs from wherever they lie, and leaves the outputs in `memory`.

    Args:
        session: as opened.
        feed: arrays, which are uploaded, and what earlier runs left.
        outputs: names of those that are left there.
        memory: "cuda" or "cpu".
        into: outputs that are brought down, each into an array of its shape (`host_array`).
    """
    binding = session.io_binding()
    # As values: `bind_cpu_input` does not know inputs that may be left out. They must live until the run is over.
    values = {name: _value(value, memory) if isinstance(value, np.ndarray) else value for name, value in feed.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for name in outputs:
        binding.bind_output(name, memory)
    for name, array in (into or {}).items():
        binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()  # the next session to read them has a stream of its own
    results: list[OnDevice] = binding.get_outputs()
    return results[: len(outputs)]


def host_array(shape: tuple[int, ...], dtype: npt.DTypeLike, memory: str) -> npt.NDArray[Any]:
    """An array with arbitrary content for what comes down from `memory`: page-locked where there is such memory."""
    pool = page_locked(memory)
    array = pool.array(shape, dtype) if pool else None
    return np.empty(shape, dtype) if array is None else array


@functools.cache
def page_locked(memory: str) -> PageLocked | None:
    """Page-locked memory for copies to and from `memory`; None, and a warning, where it does not work."""
    if memory != "cuda":
        return None
    try:
        pool = PageLocked(cuda_runtime())
        reason = _fault(pool, memory)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        reason = one_line(error)
    if not reason:
        return pool
    log.warning(
        "frames travel to and from %s in ordinary memory, as page-locked memory does not work: %s", memory, reason
    )
    return None


def _fault(pool: PageLocked, memory: str) -> str:
    """What is wrong with a small array that goes there and back through `pool`; empty if nothing."""
    up, down = (pool.array((1, 1, 4, 4), np.float32) for _ in range(2))
    if up is None or down is None:
        return "CUDA gives none"
    up[...] = np.arange(16).reshape(up.shape)
    down[...] = -1
    run_bound(
        open_session(PROBE_MODEL, memory),
        {"x": ort.OrtValue.ortvalue_from_numpy(up, memory, 0)},
        (),
        memory,
        into={"y": down},
    )
    return "" if np.array_equal(down, 2 * up) else "a trial came back otherwise"


def _value(array: npt.NDArray[Any], memory: str) -> Any:
    """An array as the session takes it: a larger one in `memory` already, as copied from page-locked memory."""
    staged = _staged(array, memory)
    if staged is None:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    # This copy is over when the call returns; one that a binding makes may not be, and the memory is used again.
    return ort.OrtValue.ortvalue_from_numpy(staged, memory, 0)


def _staged(array: npt.NDArray[Any], memory: str) -> npt.NDArray[Any] | None:
    """A copy in page-locked memory, if that pays and there is any."""
    pool = page_locked(memory) if array.nbytes >= LEAST_STAGED else None
    staged = pool.array(array.shape, array.dtype) if pool else None
    if staged is not None:
        np.copyto(staged, array)
    return staged


class FixedBuffers:
    """Inputs and outputs of a session at fixed places in the memory of a device, for frames of one size.

    Args:
        session: as opened.
        sides: length of each that its inputs and outputs leave open.
        memory: "cuda" or "cpu".
    """

    def __init__(self, session: ort.InferenceSession, sides: Mapping[str, int], memory: str) -> None:
        self._session, self._memory = session, memory
        self._binding: Any = session.io_binding()
        self._places: dict[str, Any] = {}
        self._small: dict[str, npt.NDArray[Any]] = {}
        """What lies in small inputs: most frames are painted with the weights and statistics of the one before."""
        for value in (*session.get_inputs(), *session.get_overridable_initializers()):
            self._places[value.name] = place = _place(value, sides, memory)
            self._binding.bind_ortvalue_input(value.name, place)
        for value in session.get_outputs():
            self._binding.bind_ortvalue_output(value.name, _place(value, sides, memory))

    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Their shapes."""
        return {name: tuple(place.shape()) for name, place in self._places.items()}

    def put(self, feed: Mapping[str, npt.NDArray[Any] | OnDevice]) -> None:
        """Uploads all inputs; those that are left out of `feed` become zero, their default."""
        for name, place in self._places.items():
            value = feed[name] if name in feed else np.zeros(place.shape(), np.float32)
            if not isinstance(value, np.ndarray):
                value = value.numpy()  # statistics, of a few kB
            if value.nbytes < LEAST_STAGED:
                if name in self._small and np.array_equal(self._small[name], value):
                    continue
                self._small[name] = value.copy()
            staged = _staged(value, self._memory)
            place.update_inplace(value if staged is None else staged)

    def run(self, options: ort.RunOptions | None = None) -> None:
        self._session.run_with_iobinding(self._binding, options)
        self._binding.synchronize_outputs()

    def outputs(self) -> dict[str, OnDevice]:
        """As the last run left them; the next run overwrites them. The same places, but new objects in every call."""
        names = [value.name for value in self._session.get_outputs()]
        return dict(zip(names, self._binding.get_outputs(), strict=True))


def _place(value: Any, sides: Mapping[str, int], memory: str) -> Any:
    """Memory for an input or output of a session."""
    shape = [sides.get(side, side) for side in value.shape]
    return ort.OrtValue.ortvalue_from_shape_and_type(shape, _TYPES[value.type], memory, 0)
