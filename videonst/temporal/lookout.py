"""What the stabiliser sees in the frames themselves, before anything is painted: repetitions, scene cuts, motion."""

import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

from videonst.frame import Frame, Pixels
from videonst.temporal.flow import Field, FlowProvider, Plane, SeeksSideBySide, flow_there, in_full_pixels, trust
from videonst.temporal.scene import SceneCuts

LONGEST_GAP = Fraction(1)
"""Seconds between frames after which the past is forgotten: the camera was stopped, or much was skipped."""


@dataclass(frozen=True)
class Motion:
    """How the picture came from the frame before, at the working resolution (h, w).

    Attributes:
        field: from every pixel to where it was, (h, w, 2), in pixels of the full frame.
        trust: (h, w), 0 to 1.
        exposure: its change, levels.
    """

    field: Field
    trust: Plane
    exposure: float


@dataclass(frozen=True)
class Seen:
    """A frame beside the one before it.

    Attributes:
        frame: the input.
        keep_colour: of its mixture.
        grey: as the flow wants it.
        motion: from the frame before, sought or being sought; None where it has nothing in common with that.
        same: it is equal to the frame before.
    """

    frame: Frame
    keep_colour: bool
    grey: Pixels
    motion: Future[Motion] | None = None
    same: bool = False

    def leads_to(self, frame: Frame, keep_colour: bool) -> bool:
        return self.keep_colour == keep_colour and follows(self.frame, frame)


class Lookout:
    """Looks at frames in order. To be called from one thread at a time.

    Args:
        flow: what finds motion.
        seekers: pairs of frames whose motion may be sought at once; as one where `flow` cannot.

    Attributes:
        ahead: frames that are well looked at before what is seen in the first of them is asked for.
    """

    def __init__(self, flow: FlowProvider, seekers: int) -> None:
        twins = [flow.twin() for _ in range(seekers - 1)] if isinstance(flow, SeeksSideBySide) else []
        self._flows: tuple[FlowProvider, ...] = flow, *twins
        self.ahead = len(twins)
        self._hire()
        self.reset()

    @property
    def mean_difference(self) -> float | None:
        """Of the scene so far, see `SceneCuts`."""
        return self._cuts.mean

    def reset(self) -> None:
        """The next frame is a first one."""
        self._last: Seen | None = None
        self._cuts = SceneCuts()

    def resume(self, frame: Frame, keep_colour: bool, mean_difference: float | None) -> Seen:
        """Goes on after `frame`, with the `mean_difference` of then."""
        self._last = Seen(frame, keep_colour, self._flows[0].prepare(frame.pixels))
        self._cuts.resume(self._last.grey, mean_difference)
        return self._last

    def look(self, frame: Frame, keep_colour: bool) -> Seen:
        """What is seen in the next frame."""
        last = self._last
        if last and not last.leads_to(frame, keep_colour):
            self.reset()
            last = None
        if last and same(last.frame.pixels, frame.pixels):
            seen = Seen(frame, keep_colour, last.grey, at_hand(_standstill(last.grey)), same=True)
        else:
            grey = self._flows[0].prepare(frame.pixels)
            if self._cuts.is_cut(grey) or last is None:
                seen = Seen(frame, keep_colour, grey)
            else:
                seeker, flow = next(self._turns)
                motion = seeker.submit(_motion, flow, last.grey, grey, frame)
                seen = Seen(frame, keep_colour, grey, motion)
        self._last = seen
        return seen

    def let_go(self) -> None:
        """What is being sought is not waited for."""
        for seeker in self._seekers:
            seeker.shutdown(wait=False, cancel_futures=True)
        self._hire()

    def _hire(self) -> None:
        """A thread for each provider, which thus is never asked twice at once."""
        self._seekers = [ThreadPoolExecutor(1, thread_name_prefix="videonst-flow") for _ in self._flows]
        self._turns: Iterator[tuple[ThreadPoolExecutor, FlowProvider]] = itertools.cycle(
            zip(self._seekers, self._flows, strict=True)
        )


def _motion(flow: FlowProvider, before: Pixels, grey: Pixels, frame: Frame) -> Motion:
    backward = flow.flow(grey, before)
    forward = flow_there(flow, before, grey)
    trusted, exposure = trust(before, grey, forward, backward, frame.height / grey.shape[0])
    return Motion(in_full_pixels(backward, frame.width, frame.height), trusted, exposure)


def _standstill(grey: Pixels) -> Motion:
    return Motion(np.zeros((*grey.shape, 2), np.float32), np.ones(grey.shape, np.float32), 0.0)


def follows(before: Frame, frame: Frame) -> bool:
    """Whether a frame can go on where another was, by size and time."""
    return before.pixels.shape == frame.pixels.shape and 0 <= frame.time - before.time <= LONGEST_GAP


def same(first: Pixels, second: Pixels) -> bool:
    """Whether two frames are equal. A few rows tell most others apart."""
    few = slice(None, None, SPARSE_ROWS)
    return np.array_equal(first[few], second[few]) and np.array_equal(first, second)


SPARSE_ROWS = 64
"""One row of so many is compared first."""


_Result = TypeVar("_Result")


def at_hand(result: _Result) -> Future[_Result]:
    """What need not be waited for."""
    future: Future[_Result] = Future()
    future.set_result(result)
    return future
