"""What the two tools that measure live painting share."""

import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import cv2

from videonst.live.meter import percentile
from videonst.sinks import open_sink
from videonst.sources import open_source

STEADY_RATE = 30
SIZE = (640, 360)


def clip_at_rate(source: Path, target: Path, rate: int, size: tuple[int, int] = SIZE) -> Path:
    """The pictures of `source` at a constant rate and size, without sound."""
    with open_source(source) as frames, open_sink(target, preset="veryfast") as sink:
        for number, frame in enumerate(frames):
            pixels = cv2.resize(frame.pixels, size, interpolation=cv2.INTER_AREA)
            sink.write(replace(frame, pixels=pixels, pts=number, time_base=Fraction(1, rate), duration=1))
    return target


def machine() -> dict:
    cpu = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if "model name" in line]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_1_minute": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "onnxruntime": version("onnxruntime-gpu"),
        "opencv": version("opencv-python"),
    }


def resident_mb() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


def summary(delays: Sequence[float], seconds: float) -> dict:
    """Frames a second, and delays in ms."""
    if not delays:
        return {"fps": 0.0, "delay_p50_ms": None, "delay_p95_ms": None}
    return {
        "fps": round(len(delays) / seconds, 1),
        "delay_p50_ms": round(1000 * percentile(delays, 50), 1),
        "delay_p95_ms": round(1000 * percentile(delays, 95), 1),
    }
