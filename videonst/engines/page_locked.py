"""Page-locked memory of the processor, which a GPU reads and writes by itself; other memory the driver copies piece by
piece through some of its own (CUDA C++ Programming Guide, "Page-Locked Host Memory").

It comes from CUDA's runtime library, the one that ONNX Runtime has loaded: its own allocator for such memory is open to
Python only where the CUDA provider is registered as a plugin, which the installed package does not do.
"""

import ctypes
import math
import sys
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

MOST_BYTES = 512 * 2**20
"""Page-locked at once, as the system cannot move or swap it: 20 frames of 3840x2160."""

_PORTABLE = 1
"""`cudaHostAllocPortable`: page-locked for all threads and devices."""


class PageLocked:
    """Arrays in page-locked memory. Locking takes longer than copying a frame, so memory is used again as soon as
    nobody holds its array, or a view of that. May be used from several threads.

    Args:
        runtime: `cuda_runtime()`.
        most_bytes: held at once.
    """

    def __init__(self, runtime: Any, most_bytes: int = MOST_BYTES) -> None:
        self._runtime = runtime
        self._most = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._idle: deque[tuple[int, int]] = deque()
        """Address and size. The garbage collector appends at any moment, also within this class: no lock for that."""

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
        """An array with arbitrary content; None where no such memory is left."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            address = self._taken(size)
        if address is None:
            return None
        piece = (ctypes.c_ubyte * size).from_address(address)
        weakref.finalize(piece, self._idle.append, (address, size)).atexit = False
        array: npt.NDArray[Any] = np.frombuffer(memoryview(piece), dtype).reshape(shape)
        return array

    def _taken(self, size: int) -> int | None:
        idle = [self._idle.popleft() for _ in range(len(self._idle))]
        try:
            for number, (address, length) in enumerate(idle):
                if length == size:
                    del idle[number]
                    return address
            while idle and self._bytes + size > self._most:  # of other sizes
                address, length = idle.pop(0)
                self._runtime.cudaFreeHost(address)
                self._bytes -= length
            return self._locked(size)
        finally:
            self._idle.extend(idle)

    def _locked(self, size: int) -> int | None:
        if size == 0 or self._bytes + size > self._most:
            return None
        address = ctypes.c_void_p()
        if self._runtime.cudaHostAlloc(ctypes.byref(address), size, _PORTABLE) or address.value is None:
            self._runtime.cudaGetLastError()  # or ONNX Runtime would find this error in its next call
            return None
        self._bytes += size
        return address.value


def cuda_runtime() -> ctypes.CDLL:
    """CUDA's runtime library, of the version that ONNX Runtime needs.

    Raises:
        OSError: it is not there.
    """
    major = getattr(ort, "cuda_version", "").partition(".")[0]
    name = f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}"
    library = ctypes.CDLL(name)
    library.cudaHostAlloc.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_uint)
    library.cudaFreeHost.argtypes = (ctypes.c_void_p,)
    library.cudaGetLastError.argtypes = ()
    return library
