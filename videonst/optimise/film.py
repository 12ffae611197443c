"""Film: each frame starts from the one before, moved along the flow, and is held to it (Ruder et al. 2016)."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from videonst.engines import FrameStore
from videonst.frame import Frame, Pixels
from videonst.optimise.painter import Painter
from videonst.styles import StyleMix
from videonst.temporal.flow import FlowProvider, Plane, in_full_pixels, place_of, resample, trust
from videonst.temporal.lookout import follows
from videonst.temporal.scene import SceneCuts

if TYPE_CHECKING:
    from videonst.optimise.engine import OptimiseEngine

FLOW_SIDE = 480
"""Pixels of the short side at which motion is found: finer than for the stabiliser, which has no minutes to spare."""

BLEND = 0.5
"""In passes after the first: share of the neighbour's result, where it can be trusted, in what a frame starts from."""


@dataclass(frozen=True)
class Painted:
    """A frame and what was made of it.

    Attributes:
        frame: the input.
        grey: as the flow wants it.
        result: RGB uint8, before colours are kept.
    """

    frame: Frame
    grey: Pixels
    result: Pixels


class Film:
    """Repaints the frames of one clip in order. Itself an engine, with a memory.

    With one pass a frame comes out as it goes in. With more, `window` frames of a shot are gone over forwards, then
    backwards, and so on, each time starting from a blend with the neighbour's result, before they come out.

    Attributes:
        store: where finished paintings are kept and found again; None keeps none.
    """

    def __init__(self, engine: "OptimiseEngine", painter: Painter, flow: FlowProvider) -> None:
        self._engine, self._painter, self._preset = engine, painter, engine.preset
        self._flow = flow
        self.store: FrameStore | None = None
        self._past: list[Painted] = []
        self._window: list[Painted] = []
        self._mix = StyleMix(())
        self._start: str | None = None
        self._cuts = SceneCuts()

    @property
    def description(self) -> Any:
        return self._engine.description

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        """The next frame, in one pass. See `OptimiseEngine.stylize`, but Ctrl-C is not caught."""
        mix.weights([style.name for style in self.description.styles])
        if mix.strength == 0:
            self._reset()
            return frame
        return self._engine.finished(frame, mix, self._first_pass(frame, mix).result)

    def take(self, frame: Frame, mix: StyleMix) -> list[Frame]:
        """Takes the next frame, and gives those that are finished, in order."""
        if self._preset.passes == 1 or mix.strength == 0:
            return [*self.finish(), self.stylize(frame, mix)]
        grey = self._flow.prepare(frame.pixels)
        early = self.finish() if self._begins_shot(frame, grey, look_only=True) else []
        self._window.append(self._first_pass(frame, mix))
        self._mix = mix
        return early + (self.finish() if len(self._window) == self._preset.window else [])

    def finish(self) -> list[Frame]:
        """The frames that have been taken but not given yet."""
        window, self._window = self._window, []
        if not window:
            return []
        mix = self._mix
        before = self._past[-len(window) - 1] if len(self._past) > len(window) else None
        for number in range(2, self._preset.passes + 1):
            order = range(len(window)) if number % 2 else range(len(window) - 2, -1, -1)
            for index in order:
                neighbour = index - 1 if number % 2 else index + 1
                beside = window[neighbour] if neighbour >= 0 else before
                if beside is not None:
                    window[index] = self._again(window[index], beside, mix, number)
        self._past[-len(window) :] = window
        del self._past[: -max(self._preset.lags)]
        return [self._engine.finished(p.frame, mix, p.result) for p in window]

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on as if never stopped. Nothing may be taken that was not given (`finish`)."""
        state: dict[str, Any] = {"mean_difference": self._cuts.mean, "count": len(self._past), "start": self._start}
        for index, past in enumerate(self._past):
            state[f"frame{index}"], state[f"result{index}"] = past.frame.pixels, past.result
            state[f"time{index}"] = [past.frame.time.numerator, past.frame.time.denominator]
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        self._reset()
        self._start = state["start"]
        for index in range(state["count"]):
            time = Fraction(*state[f"time{index}"])
            frame = Frame(state[f"frame{index}"], pts=time.numerator, time_base=Fraction(1, time.denominator))
            self._past.append(Painted(frame, self._flow.prepare(frame.pixels), state[f"result{index}"]))
        if self._past:
            self._cuts.resume(self._past[-1].grey, state["mean_difference"])

    def _reset(self) -> None:
        self._past, self._window, self._cuts = [], [], SceneCuts()

    def _begins_shot(self, frame: Frame, grey: Pixels, *, look_only: bool = False) -> bool:
        """Whether a shot begins here; it counts as seen unless `look_only`."""
        cuts = copy.copy(self._cuts) if look_only else self._cuts
        is_cut = cuts.is_cut(grey)
        if is_cut or not self._past:
            return True
        return not follows(self._past[-1].frame, frame)

    def _first_pass(self, frame: Frame, mix: StyleMix) -> Painted:
        grey = self._flow.prepare(frame.pixels)
        if self._start is None:  # also where the frame itself is kept from an earlier run: later ones follow it
            self._start = self._engine.choose_start(frame, mix)
        if self._begins_shot(frame, grey):
            self._past = []
        kept = self.store.get(frame, "1") if self.store else None
        if kept is None:
            kept = self._follow(frame, grey, mix) if self._past else self._open(frame, mix)
            if self.store:
                self.store.put(frame, "1", kept)
        painted = Painted(frame, grey, kept)
        self._past.append(painted)
        del self._past[: -max(self._preset.lags) - (self._preset.window if self._preset.passes > 1 else 0)]
        return painted

    def _open(self, frame: Frame, mix: StyleMix) -> Pixels:
        return self._engine.paint(frame, mix, self._begin(frame, mix))

    def _begin(self, frame: Frame, mix: StyleMix) -> Pixels:
        return self._engine.begin(frame, mix, self._start or "")

    def _follow(self, frame: Frame, grey: Pixels, mix: StyleMix) -> Pixels:
        """A frame with others before it. What a nearer one has shown, a farther one does not hold (Ruder's
        `closestFirst`)."""
        held: list[tuple[Pixels, Plane]] = []
        taken = np.zeros(frame.pixels.shape[:2], np.float32)
        for lag in self._preset.lags:
            if lag <= len(self._past):
                moved, seen = self._carried(self._past[-lag], grey, frame)
                held.append((moved, np.clip(seen - taken, 0, 1)))
                taken = np.maximum(taken, seen)
        steps = self._preset.following(1 - float(taken.mean()))
        return self._painter.paint(frame.pixels, mix, _blend(held, self._begin(frame, mix)), steps=steps, held=held)

    def _again(self, painted: Painted, beside: Painted, mix: StyleMix, number: int) -> Painted:
        kept = self.store.get(painted.frame, str(number)) if self.store else None
        if kept is None:
            moved, seen = self._carried(beside, painted.grey, painted.frame)
            beginning = _blend([(moved, BLEND * seen)], painted.result)
            steps = [max(1, count // 2) for count in self._preset.next_steps]
            kept = self._painter.paint(painted.frame.pixels, mix, beginning, steps=steps, held=[(moved, seen)])
            if self.store:
                self.store.put(painted.frame, str(number), kept)
        return Painted(painted.frame, painted.grey, kept)

    def _carried(self, past: Painted, grey: Pixels, frame: Frame) -> tuple[Pixels, Plane]:
        """A result at the place of `frame`, and how far it can be trusted, (H, W)."""
        size = frame.width, frame.height
        scale = frame.height / grey.shape[0]
        backward = self._flow.flow(grey, past.grey)
        trusted, _ = trust(past.grey, grey, self._flow.flow(past.grey, grey), backward, scale)
        motion = cv2.resize(in_full_pixels(backward, *size), size, interpolation=cv2.INTER_LINEAR)
        moved = resample(past.result, place_of(motion), cv2.INTER_CUBIC)
        return cast(Pixels, moved), cv2.resize(trusted, size, interpolation=cv2.INTER_LINEAR)


def _blend(shares: Sequence[tuple[Pixels, Plane]], rest: Pixels) -> Pixels:
    """Pictures by their shares, (H, W) each, that sum to 1 at most; what is left is of `rest`."""
    mixed = rest.astype(np.float32)
    for picture, share in shares:
        mixed += share[..., None] * (picture.astype(np.float32) - rest)
    return cast(Pixels, np.rint(mixed).clip(0, 255).astype(np.uint8))
