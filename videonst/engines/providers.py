"""Devices: which ones work here, and sessions that run on the device that was asked for or not at all.

ONNX Runtime falls back to the CPU by itself where a provider cannot be loaded, and says so only in its log. Here that
is an error.
"""

import base64
import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import io
import logging
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from videonst.errors import InputError
from videonst.processor import thread_limit

log = logging.getLogger(__name__)

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""ONNX Runtime's name of each device's execution provider."""

AUTO_ORDER = ("cuda", "coreml", "cpu")
"""What "auto" tries, best first. TensorRT builds an engine per size for minutes, so it must be asked for."""

HALF_DEVICES = ("tensorrt", "cuda")
"""Devices that gain from a half-precision model; elsewhere it is converted back or slower."""

MEMORY = {"tensorrt": "cuda", "cuda": "cuda"}
"""Where devices keep their arrays, as ONNX Runtime calls it, if elsewhere than the processor does. Also the device that
steadies pictures there: TensorRT would build an engine for every size."""

BESIDE = {"tensorrt": ("cuda",)}
"""What takes the operators that a device lacks; else the processor would, and pictures would travel there and back."""

# ONNX Runtime documentation, CUDA execution provider.
CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "cudnn_conv_use_max_workspace": "1",
    "do_copy_in_default_stream": "1",
    "arena_extend_strategy": "kSameAsRequested",
    "use_tf32": "1",
    "prefer_nhwc": "0",
}
COREML_OPTIONS = {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}

DISTRIBUTIONS = {"onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-rocm"}
"""Distributions that install the same module."""

# Severity 4 = fatal: what goes wrong is raised as an exception and reported once, not also printed.
SILENT = 4

# A 1x1 convolution by 2 on float (1, 1, 4, 4), opset 18: enough to load a provider with its convolution library.
PROBE_MODEL = base64.b64decode(
    "CAg6ZwoPCgF4CgF3EgF5IgRDb252EgVwcm9iZSoTCAEIAQgBCAEQASIEAAAAQEIBd1obCgF4EhYKFAgBEhAKAggBCgIIAQoCCAQKAggEYhsKAXkS"
    "FgoUCAESEAoCCAEKAggBCgIIBAoCCARCBAoAEBI="
)


@dataclass(frozen=True)
class DeviceReport:
    """Whether a device works here.

    Attributes:
        device: as in `--device`.
        provider: ONNX Runtime's name for it.
        works: a session was made on it and ran.
        reason: why it does not; empty where it works.
        install: the command that adds what is missing; empty where none would.
    """

    device: str
    provider: str
    works: bool
    reason: str = ""
    install: str = ""


def check_devices() -> list[DeviceReport]:
    """Tries every device with a tiny model, best first."""
    return [check_device(device) for device in PROVIDERS]


def check_device(device: str) -> DeviceReport:
    """Tries one device with a tiny model."""
    provider = PROVIDERS[device]
    probe = np.ones((1, 1, 4, 4), np.float32)
    try:
        (result,) = open_session(PROBE_MODEL, device).run(None, {"x": probe})
    except DeviceError as error:
        return DeviceReport(device, provider, False, error.reason, error.install)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        return DeviceReport(device, provider, False, one_line(error), install_command(device))
    if not np.array_equal(result, 2 * probe):
        return DeviceReport(device, provider, False, f"{provider} computes wrongly; update its driver")
    return DeviceReport(device, provider, True)


def open_session(
    model: Path | bytes, device: str, threads: int | None = None, *, cuda_graphs: bool = False
) -> ort.InferenceSession:
    """A session that runs on `device`.

    Args:
        model: .onnx file, or its content.
        device: a key of `PROVIDERS`.
        threads: of the CPU provider; None lets ONNX Runtime take the physical cores, or takes those that this process
            may use where some are withheld.
        cuda_graphs: records what it does, see `videonst.engines.cuda_graphs`; on "cuda" only.

    Raises:
        InputError: no such device.
        DeviceError: it does not work here, or cannot load this model.
    """
    if device not in PROVIDERS:
        raise InputError(f"unknown device {device!r}; expected one of auto, {', '.join(PROVIDERS)}")
    provider = PROVIDERS[device]
    if provider not in ort.get_available_providers():
        raise DeviceError(device, f"the installed ONNX Runtime {ort.__version__} has no {provider}")
    ort.set_default_logger_severity(SILENT)
    missing = _load_libraries(device)
    options = {name: _provider_options(name, model) for name in (device, *BESIDE.get(device, ()))}
    if cuda_graphs:
        options[device]["enable_cuda_graph"] = "1"
    try:
        session = ort.InferenceSession(
            model if isinstance(model, bytes) else os.fspath(model),
            _session_options(threads, shared_memory=device == "cpu"),
            providers=[(PROVIDERS[name], chosen) for name, chosen in options.items()],
            enable_fallback=0,
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise DeviceError(device, missing or one_line(error)) from error
    if session.get_providers()[0] != provider:
        raise DeviceError(device, missing or f"{provider} could not be loaded; its libraries or the driver are missing")
    return session


class DeviceError(InputError):
    """The device that was asked for does not work here. The message ends in the command that adds what is missing.

    Attributes:
        reason: what is wrong, in a line.
        install: the command; empty where none would help.
    """

    def __init__(self, device: str, reason: str) -> None:
        self.reason, self.install = reason, install_command(device)
        cure = f"; run: {self.install}" if self.install else ""
        super().__init__(f"device {device} does not work: {reason}{cure}")


def install_command(device: str) -> str:
    """The command that adds what a device needs, or nothing where this machine cannot have it."""
    if device in ("cuda", "tensorrt"):
        if platform.system() == "Darwin":
            return ""
        clean = "pip uninstall -y onnxruntime onnxruntime-gpu && " if distribution_conflict() else ""
        extra = ' "tensorrt-cu13>=10.14,<11"' if device == "tensorrt" else ""
        return f'{clean}pip install "videonst[cuda]"{extra}'
    return "pip install --upgrade onnxruntime" if device == "coreml" and platform.system() == "Darwin" else ""


def distribution_conflict() -> str | None:
    """One line when several distributions of ONNX Runtime are installed: they overwrite each other's files."""
    found = sorted(name for name in DISTRIBUTIONS if _version(name))
    if len(found) < 2:
        return None
    return (
        f"{' and '.join(found)} are both installed and overwrite each other's files; "
        f"run: pip uninstall -y {' '.join(found)}, then install videonst again"
    )


def one_line(error: object) -> str:
    """The first line of a message, without ONNX Runtime's error code."""
    text = str(error).strip().partition("\n")[0]
    return re.sub(r"^.*\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text) or type(error).__name__


def _session_options(threads: int | None, *, shared_memory: bool = False) -> ort.SessionOptions:
    options = ort.SessionOptions()
    if shared_memory and _processor_memory():
        options.add_session_config_entry("session.use_env_allocators", "1")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = SILENT
    # Idle threads must not burn the cores that decode and encode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = thread_limit() if threads is None else threads
    return options


@functools.cache
def _processor_memory() -> bool:
    """Whether sessions on the processor share the memory that they keep from run to run, instead of keeping some each:
    one engine has several sessions, and one process several engines."""
    where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    try:
        ort.create_and_register_allocator(where, None)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        log.debug("sessions keep memory of their own: %s", one_line(error))
        return False
    return True


def _provider_options(device: str, model: Path | bytes) -> dict[str, str]:
    if device == "cuda":
        return dict(CUDA_OPTIONS)
    if device == "coreml":
        return dict(COREML_OPTIONS)
    if device == "tensorrt":
        # Engines hold the weights, but ONNX Runtime takes one made for another file of the same name and graph, such as
        # a style learnt anew (its issue 6455). GPUs and versions it tells apart itself.
        content = hashlib.sha256(model if isinstance(model, bytes) else model.read_bytes()).hexdigest()
        folder = cache_folder() / "tensorrt" / f"ort{ort.__version__}-trt{_version('tensorrt-cu13')}" / content[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder),
        }
    return {}


def cache_folder() -> Path:
    """`$VIDEONST_HOME`, else `videonst` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if home := os.environ.get("VIDEONST_HOME"):
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "videonst"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _load_libraries(device: str) -> str:
    """Loads CUDA, cuDNN and TensorRT from their Python packages. Returns what is missing, in a line; empty if nothing.

    `preload_dlls` (ONNX Runtime 1.21 and later) prints what it cannot load.
    """
    if device not in ("cuda", "tensorrt"):
        return ""
    if device == "tensorrt":
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorrt")  # loads libnvinfer
    said = io.StringIO()
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(said):
            ort.preload_dlls()
    missing = [line for line in said.getvalue().splitlines() if line.startswith("Failed to load")]
    log.debug("libraries of %s: %s", device, "; ".join(missing) or "loaded")
    return missing[0].partition(": ")[0].lower() if missing else ""
