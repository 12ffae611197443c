"""Where the optimisation of a picture begins."""

import logging
import zlib
from typing import Protocol

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


class Start(Protocol):
    """Gives the picture that an optimisation begins with, of the shape of the frame."""

    def __call__(self, frame: Frame, mix: StyleMix) -> Pixels: ...


def content(frame: Frame, mix: StyleMix) -> Pixels:
    """The photograph."""
    return frame.pixels


class Noise:
    """Uniform noise, the same for the same frame and seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, frame: Frame, mix: StyleMix) -> Pixels:
        rng = np.random.default_rng((self._seed, zlib.crc32(str(frame.time).encode())))
        return rng.integers(0, 256, frame.pixels.shape, np.uint8)


class Network:
    """What a fast network paints: in the same mixture where it knows all the names, else in the one of its styles, or
    the photograph itself, whose loss is least on the first frame.

    Args:
        engine: the network.
        painter: judges.
        content_too: the photograph may be chosen.
    """

    def __init__(self, engine: Engine, painter: Painter, *, content_too: bool = True) -> None:
        self._engine, self._painter, self._content_too = engine, painter, content_too
        self._chosen: dict[StyleMix, StyleMix | None] = {}

    def __call__(self, frame: Frame, mix: StyleMix) -> Pixels:
        if mix not in self._chosen:
            self._chosen[mix] = self._choose(frame, mix)
        chosen = self._chosen[mix]
        return frame.pixels if chosen is None else self._engine.stylize(frame, chosen).pixels

    def _choose(self, frame: Frame, mix: StyleMix) -> StyleMix | None:
        known = [style.name for style in self._engine.description.styles]
        if all(name in known for name, _ in mix.shares):
            return StyleMix(mix.shares)
        factor = min(1.0, TRIAL_SIDE / min(frame.width, frame.height))
        small = Frame(scaled(frame.pixels, (round(frame.width * factor), round(frame.height * factor))))
        choices: list[StyleMix | None] = [StyleMix(((name, 1.0),)) for name in known]
        results = [self._engine.stylize(small, choice).pixels for choice in choices if choice]
        if self._content_too:
            choices.append(None)
            results.append(small.pixels)
        totals = [losses.total for losses in self._painter.losses(small.pixels, mix, results)]
        chosen = choices[int(np.argmin(totals))]
        log.info("starting from %s", f"the network's {chosen}" if chosen else "the photograph")
        return chosen


def open_start(name: str, painter: Painter, *, seed: int = 0, model: str = "fast") -> Start:
    """
    Args:
        name: of `STARTS`. "auto" and "network" need a model; "auto" may take the photograph, "network" never.
        painter: what optimises.
        seed: of the noise.
        model: whose output to start from, on the CPU.

    Raises:
        InputError: another name, or no such model.
    """
    if name not in STARTS:
        raise InputError(f"unknown start {name!r}; expected one of {', '.join(STARTS)}")
    if name == "content":
        return content
    if name == "noise":
        return Noise(seed)
    from videonst.engines.onnx import OnnxEngine

    return Network(OnnxEngine(model, "cpu"), painter, content_too=name == "auto")
