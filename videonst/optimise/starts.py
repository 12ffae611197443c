"""Where the optimisation of a picture begins."""

import logging
import zlib

import numpy as np

from videonst.engines import Engine
from videonst.errors import InputError
from videonst.frame import Frame, Pixels
from videonst.optimise.painter import Painter
from videonst.resize import scaled
from videonst.styles import StyleMix

log = logging.getLogger(__name__)

STARTS = ("auto", "content", "noise", "network")

TRIAL_SIDE = 192
"""Pixels of the short side at which starts are compared."""


class Start:
    """What an optimisation begins with: the photograph."""

    def choose(self, frame: Frame, mix: StyleMix) -> str:
        """What the frames of a film are to begin with, decided on its first; "" where there is nothing to choose."""
        return ""

    def begin(self, frame: Frame, mix: StyleMix, choice: str) -> Pixels:
        """The picture to begin with, of the shape of the frame."""
        return frame.pixels


class Noise(Start):
    """Uniform noise, the same for the same frame and seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def begin(self, frame: Frame, mix: StyleMix, choice: str) -> Pixels:
        rng = np.random.default_rng((self._seed, zlib.crc32(str(frame.time).encode())))
        return rng.integers(0, 256, frame.pixels.shape, np.uint8)


class Network(Start):
    """What a fast network paints: in the same mixture where it knows all the names, else in the one of its styles, or
    the photograph itself, whose loss is least.

    Args:
        engine: the network.
        painter: judges.
        content_too: the photograph may be chosen.
    """

    def __init__(self, engine: Engine, painter: Painter, *, content_too: bool = True) -> None:
        self._engine, self._painter, self._content_too = engine, painter, content_too
        self._known = [style.name for style in engine.description.styles]

    def choose(self, frame: Frame, mix: StyleMix) -> str:
        """The name of a style; "" for the photograph, or where the mixture itself is known."""
        if self._knows(mix):
            return ""
        factor = min(1.0, TRIAL_SIDE / min(frame.width, frame.height))
        small = Frame(scaled(frame.pixels, (round(frame.width * factor), round(frame.height * factor))))
        choices = {name: self._engine.stylize(small, _alone(name)).pixels for name in self._known}
        if self._content_too:
            choices[""] = small.pixels
        totals = [losses.total for losses in self._painter.losses(small.pixels, mix, list(choices.values()))]
        chosen = list(choices)[int(np.argmin(totals))]
        log.info("starting from %s", f"the network's {chosen}" if chosen else "the photograph")
        return chosen

    def begin(self, frame: Frame, mix: StyleMix, choice: str) -> Pixels:
        if self._knows(mix):
            return self._engine.stylize(frame, StyleMix(mix.shares)).pixels
        return self._engine.stylize(frame, _alone(choice)).pixels if choice else frame.pixels

    def _knows(self, mix: StyleMix) -> bool:
        return all(name in self._known for name, _ in mix.shares)


def _alone(name: str) -> StyleMix:
    return StyleMix(((name, 1.0),))


def open_start(name: str, painter: Painter, *, seed: int = 0, model: str = "fast") -> Start:
    """
    Args:
        name: of `STARTS`. "auto" and "network" need a model; "auto" may take the photograph, "network" never.
        painter: what optimises.
        seed: of the noise.
        model: whose output to start from, on the CPU.

    Raises:
        InputError: another name, a seed below 0, or no such model.
    """
    if seed < 0:
        raise InputError(f"the seed is {seed}; expected 0 or more")
    if name not in STARTS:
        raise InputError(f"unknown start {name!r}; expected one of {', '.join(STARTS)}")
    if name == "content":
        return Start()
    if name == "noise":
        return Noise(seed)
    from videonst.engines.onnx import OnnxEngine

    return Network(OnnxEngine(model, "cpu"), painter, content_too=name == "auto")
