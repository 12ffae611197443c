"""How much the rest of a picture pulses when something enters it: "Held statistics" of docs/benchmarks/stability.md.

    python tools/measure_held_statistics.py [--model fast] [--style udnie ...]

A dark object enters a still photograph with camera noise (640x360, 16 frames; at the end it covers the left half).
Prints the mean change of the low frequencies (means of 32x16 pixels) in the right half, levels a frame.
"""

import argparse
from fractions import Fraction

import cv2
import numpy as np

import videonst
from videonst.bench.scenes import CAMERA_NOISE, read_picture
from videonst.demo import PORTRAIT
from videonst.engines import Engine, EngineDescription
from videonst.frame import Frame, Pixels
from videonst.resize import scaled
from videonst.styles import StyleMix
from videonst.temporal import DEFAULT_STEADY, Stabiliser

WIDTH, HEIGHT, COUNT = 640, 360, 16
CELLS = (WIDTH // 2 // 32, HEIGHT // 16)
DARK = 20


class NotHolding:
    """The engine without what it can hold."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def description(self) -> EngineDescription:
        return self._engine.description

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        return self._engine.stylize(frame, mix)


def scene() -> list[Pixels]:
    photo = scaled(read_picture(PORTRAIT), (WIDTH, WIDTH))[:HEIGHT]
    rng = np.random.default_rng(0)
    frames = []
    for index in range(COUNT):
        frame = photo.astype(np.float32)
        frame[:, : WIDTH // 2 * index // (COUNT - 1)] = DARK
        frames.append(np.clip(frame + rng.normal(0, CAMERA_NOISE, frame.shape), 0, 255).round().astype(np.uint8))
    return frames


def pulse(engine: Engine, frames: list[Pixels], style: str, steady: float) -> float:
    stabiliser, mix = Stabiliser(engine, steady=steady), StyleMix.parse(style)
    coarse = []
    for index, pixels in enumerate(frames):
        shown = stabiliser.stylize(Frame(pixels, pts=index, time_base=Fraction(1, 25)), mix).pixels
        coarse.append(cv2.resize(shown[:, WIDTH // 2 :].astype(np.float32), CELLS, interpolation=cv2.INTER_AREA))
    return float(np.abs(np.diff(coarse, axis=0)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="fast")
    parser.add_argument("--style", action="append")
    args = parser.parse_args()
    engine, frames = videonst.load(args.model, device="cpu").engine, scene()
    print(f"| style | steady 0 | {DEFAULT_STEADY}, statistics not held | {DEFAULT_STEADY} |\n| --- | --- | --- | --- |")
    for style in args.style or ["starry_night", "udnie", "great_wave"]:
        ways = ((engine, 0.0), (NotHolding(engine), DEFAULT_STEADY), (engine, DEFAULT_STEADY))
        print(f"| {style} | " + " | ".join(f"{pulse(e, frames, style, steady):.2f}" for e, steady in ways) + " |")


if __name__ == "__main__":
    main()
