"""The stabiliser: an engine around an engine that keeps what it painted where the picture has not changed."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, ParamSpec, TypeVar

import cv2
import numpy as np

from videonst.engines import (
    Engine,
    EngineDescription,
    HoldsStatistics,
    KeepsOnDevice,
    OnDevice,
    Stateful,
    Statistics,
    as_array,
)
from videonst.errors import InputError
from videonst.frame import Frame
from videonst.styles import StyleMix
from videonst.temporal.carry import Carry, Levels, Way, carry_for, on_host, whole
from videonst.temporal.flow import DisFlow, Field, FlowProvider, exposure_change
from videonst.temporal.lookout import Lookout, Motion, Seen, at_hand
from videonst.temporal.past import Alone, Painted, Past, Steadied, Weights

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

UNLIKE = 0.5
"""Distance of mixtures (sum of the absolute differences of their weights) at which nothing of the history is kept."""

FOLLOWED = 1.0
"""Change of exposure between two frames, levels, at which half of the painting's own change of mean is followed."""

_INNER = "engine."
"""Before the keys of the engine's own memory."""


@dataclass(frozen=True)
class _Taken:
    """A frame to be painted, with what was asked for when it was taken. `seen` is None where it is painted alone."""

    frame: Frame
    mix: StyleMix
    engine: Engine
    share: float
    seen: Seen | None


class _Moved(NamedTuple):
    """The `history` moved along `way`, and what is `owed` after it."""

    history: Levels | OnDevice
    way: Way
    owed: Field


_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class Stabiliser:
    """Repaints the frames of one clip or camera, in order, steadier than the engine alone. Itself an `Engine`, and one
    that may look ahead (`LooksAhead`): `stylize` where somebody waits for the frame, `take` and `finish` for a file.

    The previous painting is carried along the motion of the input and mixed into the new one, as far as the motion can
    be trusted. Flow and warping need only what is there before the new painting, so they run beside the engine: no
    frame is delayed. With `take`, mixing runs beside the engine's work on the next frames as well, and with several
    seekers motion is found ahead of the painting; the result is the same. Method, cost and limits: docs/steady.md.

    To be called from one thread at a time; `steady` may be set from any.

    Args:
        engine: what repaints.
        steady: 0 (each frame on its own, bit for bit what the engine paints) to 1 (hold still).
        flow: what finds the motion; None takes `DisFlow()`.
        painters: frames that the engine paints at once, as far as `take` is given them; see `PaintsSideBySide`.
        seekers: pairs of frames whose motion is sought at once, likewise; see `SeeksSideBySide`.

    Attributes:
        engine: as given; may be replaced between frames by one with the same styles, such as a faster tier.
        last_painted: whether the engine worked on the last frame; False where it was equal to the one before.

    Raises:
        InputError: `steady` out of range.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        steady: float = DEFAULT_STEADY,
        flow: FlowProvider | None = None,
        painters: int = 1,
        seekers: int = 1,
    ) -> None:
        self.engine = engine
        self.steady = steady
        self._names = [style.name for style in engine.description.styles]
        self._lookout = Lookout(flow or DisFlow(), seekers)
        self._painters = painters
        self._taken: deque[_Taken] = deque()
        self._under_way: deque[tuple[Frame, Future[Steadied]]] = deque()
        self._hire()
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
        self._lookout.reset()
        self._past: Past | None = None
        self._alone: Alone | None = None

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        """The same moment repainted, with the same size.

        A frame is painted on its own after `reset`, at another size, where time runs backwards or more than
        `LONGEST_GAP` has passed, at a scene cut, and where `keep_colour` has changed. At strength 0 it comes back
        untouched.

        Raises:
            InputError, VideoNSTError: as the engine. After an error the next frame is painted on its own.
        """
        *_, repainted = [*self.take(frame, mix), *self.finish()]
        return repainted

    def take(self, frame: Frame, mix: StyleMix) -> list[Frame]:
        """Paints the next frame, with `engine` and `steady` as they are now, and gives those that are steady by now: up
        to `painters + seekers - 1` fewer than were taken.

        Raises:
            InputError, VideoNSTError: as `stylize`.
        """
        with self._forgetting():
            self._taken.append(self._look(frame, mix))
            self._begin_all_but(self._lookout.ahead)
            return [self._next() for _ in range(len(self._under_way) - self._painters)]

    def finish(self) -> list[Frame]:
        """The frames that were taken and not given yet."""
        with self._forgetting():
            self._begin_all_but(0)
            return [self._next() for _ in range(len(self._under_way))]

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on as if never stopped, the engine's memory included: arrays and JSON values."""
        with self._forgetting():
            self._begin_all_but(0)
        inner = self.engine.state() if isinstance(self.engine, Stateful) else {}
        state = {_INNER + key: value for key, value in inner.items()}
        past = self._past
        if past is None:
            return state
        frame, held, steadied = past.seen.frame, past.held, past.steadied.result()
        return (
            state
            | {
                "frame": frame.pixels,
                "time": [frame.time.numerator, frame.time.denominator],
                "keep_colour": past.seen.keep_colour,
                "painting": on_host(past.painted.result().painting),
                "weights": past.weights,
                "history": on_host(steadied.history),
                "weights_held": past.weights_held,
                "mean_difference": self._lookout.mean_difference,
            }
            | ({} if held is None else {"statistics": as_array(held), "due": past.due})
            | ({} if steadied.owed is None else {"owed": steadied.owed})
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
        history = state["history"]
        self._past = Past(
            seen=self._lookout.resume(frame, state["keep_colour"], state["mean_difference"]),
            motion=None,
            painted=at_hand(Painted(state["painting"], state.get("statistics"))),
            weights=state["weights"],
            steadied=at_hand(Steadied(history, whole(history), state.get("owed"))),
            weights_held=state["weights_held"],
            engine=self.engine,
            kept=None,
            due=state.get("due", 1.0),
        )

    def _look(self, frame: Frame, mix: StyleMix) -> _Taken:
        """Begins to look for the motion, which needs no painting."""
        share = history_share(self._steady)
        if share == 0 or mix.strength == 0:  # the knob at 0; the photograph untouched
            self._lookout.reset()
            return _Taken(frame, mix, self.engine, share, None)
        return _Taken(frame, mix, self.engine, share, self._lookout.look(frame, mix.keep_colour))

    def _begin_all_but(self, count: int) -> None:
        """Begins to paint what was taken first, up to the newest `count`."""
        while len(self._taken) > count:
            taken = self._taken.popleft()
            self._under_way.append((taken.frame, self._begin(taken)))

    def _begin(self, taken: _Taken) -> Future[Steadied]:
        """Paints the frame, while the history is brought along; and what shows it steadied."""
        self.last_painted = True
        mix, engine, seen = taken.mix, taken.engine, taken.seen
        if seen is None:
            self._past = None
            self._alone = self._paint_alone(taken, self._alone)
            return self._carrying.submit(_as_painted, self._alone.painted)
        weights = mix.weights(self._names)
        motion, past = seen.motion, self._past
        alike = likeness(past.weights_held, weights) if past and motion else 0.0
        share, hold = alike * taken.share, alike * (1 - (1 - taken.share) / STATISTICS_MEMORY)
        carry = carry_for(engine, mix.keep_colour)
        kept, due = None, 1.0
        if past and seen.same and past.engine is engine and np.array_equal(past.weights, weights):
            self.last_painted = False
            painted, motion, kept, due = past.painted, None, past.held, past.due
            steadied = self._carrying.submit(_settle, carry, past, share)
        elif past and motion and share > 0:
            held, hold, due = self._holding(past, seen, engine, hold)
            kept = held if hold == 1 else None
            moved = self._carrying.submit(_move, carry, past, motion, share)
            painted = self._paint(taken, held, hold, carry.on_device)
            steadied = self._carrying.submit(_merge, carry, painted, moved, share)
        else:
            motion = None
            painted = self._paint(taken, None, 0, on_device=False)
            steadied = self._carrying.submit(_anew, painted)
        weights_held = share * past.weights_held + (1 - share) * weights if past else weights
        self._past = Past(seen, motion, painted, weights, steadied, weights_held, engine, kept, due)
        return steadied

    def _next(self) -> Frame:
        """The frame that was taken first of those not given yet."""
        frame, steadied = self._under_way.popleft()
        return frame.with_pixels(steadied.result().shown)

    @contextlib.contextmanager
    def _forgetting(self) -> Iterator[None]:
        """After an error the next frame is painted on its own, and nobody works on the others any longer."""
        try:
            yield
        except BaseException:
            # Ctrl-C while a thread starts leaves it unknown to its pool: the program would wait for it for ever at its
            # end, if it were not told here that there is no more work.
            for pool in filter(None, (self._carrying, self._painting)):
                pool.shutdown(wait=False, cancel_futures=True)
            self._lookout.let_go()
            self._hire()
            self._taken.clear()
            self._under_way.clear()
            self.reset()
            raise

    def _hire(self) -> None:
        """A thread for the history, and where several frames are painted at once, one for each."""
        self._carrying = ThreadPoolExecutor(1, thread_name_prefix="videonst-history")
        several = self._painters > 1
        self._painting = ThreadPoolExecutor(self._painters, thread_name_prefix="videonst-paint") if several else None

    def _holding(
        self, past: Past, seen: Seen, engine: Engine, hold: float
    ) -> tuple[Statistics | OnDevice | None, float, float]:
        """The statistics of the shot and how far to hold them, where the engine can; and `Past.due`."""
        if not isinstance(engine, HoldsStatistics) or past.engine is not engine:
            return None, hold, 1.0
        held = past.held
        if held is None:
            return None, hold, 1.0
        hold *= past.due * (1 - _followed(exposure_change(past.seen.grey, seen.grey)))
        return (held, 1.0, hold) if hold > STATISTICS_DUE else (held, hold, 1.0)

    def _paint(
        self, taken: _Taken, held: Statistics | OnDevice | None, hold: float, on_device: bool
    ) -> Future[Painted]:
        return self._at_once(_painted, taken.engine, taken.frame, taken.mix, held, hold, on_device)

    def _paint_alone(self, taken: _Taken, before: Alone | None) -> Alone:
        """What the engine makes of the frame; of the same frame again nothing new."""
        frame, mix, engine = taken.frame, taken.mix, taken.engine
        if before and before.shows(frame, mix, engine):
            self.last_painted = False
            return before
        return Alone(frame.pixels, mix, engine, self._at_once(engine.stylize, frame, mix))

    def _at_once(self, work: Callable[_Given, _Result], *given: _Given.args, **named: _Given.kwargs) -> Future[_Result]:
        """Work of the engine: beside that on other frames where it paints several, else here and now."""
        if self._painting:
            return self._painting.submit(work, *given, **named)
        return at_hand(work(*given, **named))


def _painted(
    engine: Engine, frame: Frame, mix: StyleMix, held: Statistics | OnDevice | None, hold: float, on_device: bool
) -> Painted:
    """What the engine makes of the frame, with the statistics of the shot held where it can."""
    if on_device and isinstance(engine, KeepsOnDevice):
        return Painted(*engine.stylize_on_device(frame, mix, held, hold))
    if not isinstance(engine, HoldsStatistics):
        return Painted(engine.stylize(frame, mix).pixels, None)
    painting, used = engine.stylize_holding(frame, mix, as_array(held), hold)
    return Painted(painting.pixels, used)


def _move(carry: Carry, past: Past, motion: Future[Motion], share: float) -> _Moved:
    """The history where the picture is by now."""
    found, before = motion.result(), past.steadied.result()
    field, owed = _without_tremble(found.field if before.owed is None else cv2.add(found.field, before.owed))
    owed *= cv2.merge((found.trust * np.float32(share),) * 2)  # the painting is where it should be
    way = Way(field, found.trust, _followed(found.exposure))
    return _Moved(carry.move(before.history, way), way, owed)


def _merge(carry: Carry, painted: Future[Painted], moved: Future[_Moved], share: float) -> Steadied:
    history, way, owed = moved.result()
    return Steadied(*carry.merge(painted.result().painting, history, way, share), owed)


def _settle(carry: Carry, past: Past, share: float) -> Steadied:
    """The same frame again."""
    before = past.steadied.result()
    settled = carry.settle(past.painted.result().painting, before.history, share)
    return Steadied(*settled, None if before.owed is None else before.owed * np.float32(share))


def _anew(painted: Future[Painted]) -> Steadied:
    """Without a past."""
    history = on_host(painted.result().painting).astype(np.float32)
    return Steadied(history, whole(history))


def _as_painted(frame: Future[Frame]) -> Steadied:
    pixels = frame.result().pixels
    return Steadied(pixels, pixels)


def history_share(steady: float) -> float:
    """Weight of a fully trusted history at a position of the knob: the memory grows evenly to the hand."""
    return min(1 - (1 - steady) ** 2, MOST_HISTORY)


def likeness(held: Weights, wanted: Weights) -> float:
    """How much of a history that was painted with the weights `held` can serve `wanted`: 1 for the same, 0 at `UNLIKE`.

    A gliding mixture thus shortens the memory, instead of trailing behind.
    """
    return max(0.0, 1 - float(np.abs(held - wanted).sum()) / UNLIKE)


def _followed(exposure: float) -> float:
    """How much of what a change of exposure does to the painting is followed at once, 0 to 1."""
    return exposure**2 / (exposure**2 + FOLLOWED**2)


def _without_tremble(motion: Field) -> tuple[Field, Field]:
    """Motion in pixels of the full frame, with what is below `STILL` set to none; and the rest."""
    length = cv2.magnitude(*cv2.split(motion))
    kept = np.clip(length / np.float32(STILL) - 1, 0, 1)
    carried = cv2.multiply(motion, cv2.merge((kept, kept)))
    return carried, cv2.subtract(motion, carried)
