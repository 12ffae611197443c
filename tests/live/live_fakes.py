"""Stand-ins for the live tests: a clock that moves when told, engines that paint in a known way."""

from dataclasses import dataclass, field

import numpy as np

from videonst.engines import EngineDescription
from videonst.engines.metadata import SizeRules, StyleInfo
from videonst.frame import Frame
from videonst.styles import StyleMix


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeEngine:
    """Inverts, notes what it was given, and lets time pass by its pixels."""

    clock: Clock
    seconds_per_pixel: float
    sizes: list[tuple[int, int]] = field(default_factory=list)
    mixes: list[StyleMix] = field(default_factory=list)
    names: str = "abc"

    @property
    def description(self) -> EngineDescription:
        styles = tuple(StyleInfo(name=name) for name in self.names)
        return EngineDescription(name="fake", styles=styles, size=SizeRules(), device="cpu", precision="fp32")

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        self.sizes.append((frame.width, frame.height))
        self.mixes.append(mix)
        self.clock.now += self.seconds_per_pixel * frame.width * frame.height
        return frame.with_pixels(255 - frame.pixels)


class FakeEngines:
    """As `videonst.live.painter.Engines`, with the costs of the tiers as documented."""

    models = ("full", "fast", "tiny")
    style_names = ("a", "b", "c")

    def __init__(self, clock: Clock, seconds_per_pixel: float = 0.0) -> None:
        self.engines = {
            "full": FakeEngine(clock, 9.5 * seconds_per_pixel),
            "fast": FakeEngine(clock, 2.7 * seconds_per_pixel),
            "tiny": FakeEngine(clock, seconds_per_pixel),
        }
        self.asked: list[str] = []

    def get(self, model: str) -> FakeEngine:
        self.asked.append(model)
        return self.engines[model]


def grey(level: int, size: tuple[int, int] = (64, 48), pts: int = 0) -> Frame:
    width, height = size
    return Frame(np.full((height, width, 3), level, np.uint8), pts)
