"""The stabiliser: an engine around an engine that keeps what it painted where the picture has not changed."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from videonst.engines import (
    Engine,
    EngineDescription,
    HoldsStatistics,
    KeepsOnDevice,
    OnDevice,
    Stateful,
    Statistics,
)
from videonst.errors import InputError
from videonst.frame import Frame, Pixels
from videonst.styles import StyleMix
from videonst.temporal.carry import Carry, Levels, Way, carry_for, on_host, whole
from videonst.temporal.flow import (
    DisFlow,
    Field,
    FlowProvider,
    exposure_change,
    flow_there,
    in_full_pixels,
    trust,
)
from videonst.temporal.scene import SceneCuts

Weights = npt.NDArray[np.float32]
"""Of a mixture, (1, styles + 1)."""

DEFAULT_STEADY = 0.75
"""Position of the knob, 0 to 1: the history weighs 0.94 where it is fully trusted, a memory of 16 frames."""

MOST_HISTORY = 0.98
"""Weight of the history at most: a memory of 50 frames, so nothing is held for ever."""

STILL = 0.3
"""Motion, pixels of the full frame, below which the picture counts as still: noise moves the flow about that much, and
every resampling blurs and trembles. Between once and twice this, motion is faded in. What is not carried out is owed:
it adds up until it is, so that a history does not fall behind a slow pan."""

STATISTICS_MEMORY = 4.0
"""The statistics of the normalisation are held this many times as long as the history: 64 frames at the default."""

STATISTICS_DUE = 0.8
"""Held statistics stay untouched until they would weigh no more than this, and take in the frame's own then: every 15th
frame at the default, sooner where the exposure changes. 8-bit files paint a frame whose statistics are entirely held in
three quarters of the time. In a steady drift the history, with a quarter of the memory, shows of such a step in a frame
what it would show anyway: (1 - 0.8) * `STATISTICS_MEMORY` times the drift of a frame."""

LEAST_TRUSTED = 0.35
"""Mean trust below which a frame has too little in common with the one before for its statistics to be held: a cut that
`SceneCuts` missed, or a whip pan. Cuts of three real clips had at most 0.08, all else 0.4 and more."""

LONGEST_GAP = Fraction(1)
"""Seconds between frames after which the past is forgotten: the camera was stopped, or much was skipped."""

UNLIKE = 0.5
"""Distance of mixtures (sum of the absolute differences of their weights) at which nothing of the history is kept."""

FOLLOWED = 1.0
"""Change of exposure between two frames, levels, at which half of the painting's own change of mean is followed."""

_INNER = "engine."
"""Before the keys of the engine's own memory."""


class Stabiliser:
    """Repaints the frames of one clip or camera, in order, steadier than the engine alone. Itself an `Engine`.

    The previous painting is carried along the motion of the input and mixed into the new one, as far as the motion can
    be trusted. Flow and warping need only what is there before the new painting, so they run in a thread of their own
    while the engine works: no frame is delayed. Method, cost and limits: docs/steady.md.

    To be called from one thread at a time; `steady` may be set from any.

    Args:
        engine: what repaints.
        steady: 0 (each frame on its own, bit for bit what the engine paints) to 1 (hold still).
        flow: what finds the motion; None takes `DisFlow()`.

    Attributes:
        engine: as given; may be replaced between frames by one with the same styles, such as a faster tier.
        last_painted: whether the engine worked on the last frame; False where it was equal to the one before.

    Raises:
        InputError: `steady` out of range.
    """

    def __init__(self, engine: Engine, *, steady: float = DEFAULT_STEADY, flow: FlowProvider | None = None) -> None:
        self.engine = engine
        self.steady = steady
        self._flow = flow or DisFlow()
        self._names = [style.name for style in engine.description.styles]
        self.reset()

    @property
    def steady(self) -> float:
        """The knob, 0 to 1; takes effect with the next frame."""
        return self._steady

    @steady.setter
    def steady(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise InputError(f"steady is {value:g}; expected 0 (as painted) to 1 (hold still)")
        self._steady = float(value)

    @property
    def description(self) -> EngineDescription:
        """Of the engine."""
        return self.engine.description

    def reset(self) -> None:
        """Forgets the past: the next frame is painted on its own."""
        self.last_painted = True
        self._past: _Past | None = None
        self._alone: _Alone | None = None
        self._cuts = SceneCuts()

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        """The same moment repainted, with the same size.

        A frame is painted on its own after `reset`, at another size, where time runs backwards or more than
        `LONGEST_GAP` has passed, at a scene cut, and where `keep_colour` has changed. At strength 0 it comes back
        untouched.

        Raises:
            InputError, VideoNSTError: as the engine.
        """
        self.last_painted = True
        share = history_share(self._steady)
        if share == 0 or mix.strength == 0:  # the knob at 0; the photograph untouched
            alone = self._alone
            self.reset()
            self._alone = self._paint_alone(frame, mix, alone)
            return frame.with_pixels(self._alone.painting)
        weights = mix.weights(self._names)
        if self._past and not self._past.leads_to(frame, mix):
            self.reset()
        past = self._past
        repeated = past is not None and past.engine is self.engine and past.shows(frame, weights)
        grey = past.grey if past and repeated else self._flow.prepare(frame.pixels)
        if not repeated and self._cuts.is_cut(grey):
            past = None
        alike = likeness(past.weights_held, weights) if past else 0.0
        share, hold = alike * share, alike * (1 - (1 - share) / STATISTICS_MEMORY)
        carry = carry_for(self.engine, mix.keep_colour)
        history: Levels | OnDevice
        if past and repeated:
            self.last_painted = False
            painting, statistics, due = past.painting, past.statistics, past.due
            history, shown = carry.settle(painting, past.history, share)
            owed = None if past.owed is None else past.owed * np.float32(share)
        elif past and share > 0:
            moving = _Background(lambda: self._move(carry, past, grey, frame))
            try:
                painting, statistics, due = self._paint(frame, grey, mix, past, hold, carry.on_device)
            finally:
                moving.join()
            moved, way, owed = moving.result()
            history, shown = carry.merge(painting, moved, way, share)
            owed *= cv2.merge((way.trust * np.float32(share),) * 2)  # the painting is where it should be
            if way.trust.mean() < LEAST_TRUSTED:
                statistics = None
        else:
            painting, statistics, due = self._paint(frame, grey, mix, None, 0)
            history = on_host(painting).astype(np.float32)
            shown, owed = whole(history), None
        held = share * past.weights_held + (1 - share) * weights if past else weights
        self._past = _Past(
            frame, mix.keep_colour, grey, painting, weights, history, held, self.engine, statistics, due, owed
        )
        return frame.with_pixels(shown)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on as if never stopped, the engine's memory included: arrays and JSON values."""
        inner = self.engine.state() if isinstance(self.engine, Stateful) else {}
        state = {_INNER + key: value for key, value in inner.items()}
        past = self._past
        if past is None:
            return state
        return (
            state
            | {
                "frame": past.frame.pixels,
                "time": [past.frame.time.numerator, past.frame.time.denominator],
                "keep_colour": past.keep_colour,
                "painting": on_host(past.painting),
                "weights": past.weights,
                "history": on_host(past.history),
                "weights_held": past.weights_held,
                "mean_difference": self._cuts.mean,
            }
            | ({} if past.statistics is None else {"statistics": _array(past.statistics), "due": past.due})
            | ({} if past.owed is None else {"owed": past.owed})
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a `state()`, with the same engine and flow."""
        self.reset()
        if isinstance(self.engine, Stateful):
            self.engine.restore({k.removeprefix(_INNER): v for k, v in state.items() if k.startswith(_INNER)})
        if "frame" not in state:
            return
        time = Fraction(*state["time"])
        frame = Frame(state["frame"], pts=time.numerator, time_base=Fraction(1, time.denominator))
        grey = self._flow.prepare(frame.pixels)
        self._past = _Past(
            frame, state["keep_colour"], grey, state["painting"], state["weights"], state["history"],
            state["weights_held"], self.engine, state.get("statistics"), state.get("due", 1.0),
            state.get("owed"),
        )  # fmt: skip
        self._cuts.resume(grey, state["mean_difference"])

    def _paint(
        self, frame: Frame, grey: Pixels, mix: StyleMix, past: "_Past | None", hold: float, on_device: bool = False
    ) -> tuple[Pixels | OnDevice, Statistics | OnDevice | None, float]:
        """What the engine makes of the frame, with the statistics of the shot held where it can; and `_Past.due`."""
        held, due = None, 1.0
        if past and past.engine is self.engine and past.statistics is not None:
            held = past.statistics
            hold *= past.due * (1 - _followed(exposure_change(past.grey, grey)))
            if hold > STATISTICS_DUE:
                hold, due = 1.0, hold
        if on_device and isinstance(self.engine, KeepsOnDevice):
            return *self.engine.stylize_on_device(frame, mix, held, hold), due
        if not isinstance(self.engine, HoldsStatistics):
            return self.engine.stylize(frame, mix).pixels, None, due
        painted, used = self.engine.stylize_holding(frame, mix, _array(held), hold)
        return painted.pixels, used, due

    def _paint_alone(self, frame: Frame, mix: StyleMix, before: "_Alone | None") -> "_Alone":
        """What the engine makes of the frame; of the same frame again nothing new."""
        if before and before.engine is self.engine and before.mix == mix and same(before.pixels, frame.pixels):
            self.last_painted = False
            return before
        return _Alone(frame.pixels, mix, self.engine, self.engine.stylize(frame, mix).pixels)

    def _move(self, carry: Carry, past: "_Past", grey: Pixels, frame: Frame) -> "_Moved":
        """The history on its way to where it is by now. Runs beside the engine."""
        scale = frame.height / grey.shape[0]
        backward = self._flow.flow(grey, past.grey)
        trusted, exposure = trust(past.grey, grey, flow_there(self._flow, past.grey, grey), backward, scale)
        motion = in_full_pixels(backward, frame.width, frame.height)
        motion, owed = _without_tremble(motion if past.owed is None else cv2.add(motion, past.owed))
        way = Way(motion, trusted, _followed(exposure))
        return carry.move(past.history, way), way, owed


def history_share(steady: float) -> float:
    """Weight of a fully trusted history at a position of the knob: the memory grows evenly to the hand."""
    return min(1 - (1 - steady) ** 2, MOST_HISTORY)


def likeness(held: Weights, wanted: Weights) -> float:
    """How much of a history that was painted with the weights `held` can serve `wanted`: 1 for the same, 0 at `UNLIKE`.

    A gliding mixture thus shortens the memory, instead of trailing behind.
    """
    return max(0.0, 1 - float(np.abs(held - wanted).sum()) / UNLIKE)


def same(first: Pixels, second: Pixels) -> bool:
    """Whether two frames are equal. A few rows tell most others apart."""
    few = slice(None, None, SPARSE_ROWS)
    return np.array_equal(first[few], second[few]) and np.array_equal(first, second)


SPARSE_ROWS = 64
"""One row of so many is compared first."""


@dataclass(frozen=True)
class _Alone:
    """A frame that was painted on its own, as `pixels` with `mix` by `engine`, and the `painting`."""

    pixels: Pixels
    mix: StyleMix
    engine: Engine
    painting: Pixels


@dataclass(frozen=True)
class _Past:
    """What is remembered of the frame before. What lies on a device is kept with the engine that it came from.

    Attributes:
        frame: the input.
        keep_colour: of its mixture.
        grey: as the flow wants it.
        painting: by the engine, alone.
        weights: of its mixture.
        history: what was shown, in fractions of levels.
        weights_held: mean mixture of the paintings in the history.
        engine: that painted.
        statistics: of its normalisation, None where it holds none.
        due: weight that is left to them, with what they have not taken in since they last did.
        owed: motion that the history has not been carried along yet, as `Way.motion`; None for none.
    """

    frame: Frame
    keep_colour: bool
    grey: Pixels
    painting: Pixels | OnDevice
    weights: Weights
    history: Levels | OnDevice
    weights_held: Weights
    engine: Engine
    statistics: Statistics | OnDevice | None
    due: float
    owed: Field | None

    def leads_to(self, frame: Frame, mix: StyleMix) -> bool:
        same = self.frame.pixels.shape == frame.pixels.shape and self.keep_colour == mix.keep_colour
        return same and 0 <= frame.time - self.frame.time <= LONGEST_GAP

    def shows(self, frame: Frame, weights: Weights) -> bool:
        return np.array_equal(self.weights, weights) and same(self.frame.pixels, frame.pixels)


_Moved = tuple[Levels | OnDevice, Way, Field]
"""A history on its way, the way, and what is owed after it; see `_Past.owed`."""


class _Background:
    """Runs `work` in a thread of its own."""

    def __init__(self, work: Callable[[], _Moved]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="videonst-flow", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def join(self) -> None:
        self._thread.join()

    def result(self) -> _Moved:
        if self._error:
            raise self._error
        return self._result


def _array(statistics: Statistics | OnDevice | None) -> Statistics | None:
    """Brought down where they lie on a device."""
    return statistics if statistics is None or isinstance(statistics, np.ndarray) else statistics.numpy()


def _followed(exposure: float) -> float:
    """How much of what a change of exposure does to the painting is followed at once, 0 to 1."""
    return exposure**2 / (exposure**2 + FOLLOWED**2)


def _without_tremble(motion: Field) -> tuple[Field, Field]:
    """Motion in pixels of the full frame, with what is below `STILL` set to none; and the rest."""
    length = cv2.magnitude(*cv2.split(motion))
    kept = np.clip(length / np.float32(STILL) - 1, 0, 1)
    carried = cv2.multiply(motion, cv2.merge((kept, kept)))
    return carried, cv2.subtract(motion, carried)
