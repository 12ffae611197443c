"""What a measurement was made on."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from videonst.processor import usable_cores

DISTRIBUTIONS = (
    "onnxruntime-gpu", "onnxruntime", "nvidia-cudnn-cu13", "tensorrt-cu13", "opencv-python", "av", "numpy", "videonst",
)  # fmt: skip


def describe_machine() -> dict[str, object]:
    """Processor, cores, load, system, GPU and its driver where there is one, versions of what computes."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "load_1_minute": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "gpu": _gpu(),
        "versions": {name: found for name in DISTRIBUTIONS if (found := _version(name))},
    }


def resident_mb() -> float | None:
    """Resident memory of this process, MB; None where the system does not say."""
    return _status("VmRSS")


def peak_resident_mb() -> float | None:
    """Most resident memory of this process so far, MB; None where the system does not say."""
    return _status("VmHWM")


_STATUS = Path("/proc/self/status")


def _status(key: str) -> float | None:
    if not _STATUS.exists():
        return None
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(key))
    return round(int(line.split()[1]) / 1024, 1)


def _processor() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())


def _gpu() -> str | None:
    """Name and driver, as nvidia-smi says."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0] or None


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
