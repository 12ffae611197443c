"""What the two tools that measure live painting share."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
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


def summary(delays: Sequence[float], seconds: float) -> dict:
    """Frames a second, and delays in ms."""
    if not delays:
        return {"fps": 0.0, "delay_p50_ms": None, "delay_p95_ms": None}
    return {
        "fps": round(len(delays) / seconds, 1),
        "delay_p50_ms": round(1000 * percentile(delays, 50), 1),
        "delay_p95_ms": round(1000 * percentile(delays, 95), 1),
    }
