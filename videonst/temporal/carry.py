"""The history, carried along the motion and blended into a new painting: on the processor, or on the painting device.

Both ways do the same; docs/steady.md says what. On a device the work is a graph of its own, `carry.onnx`, so that only
what is shown leaves the device. `videonst.export.carry` makes that file from the constants below.
"""

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt

from videonst.engines import Engine, KeepsOnDevice, OnDevice
from videonst.engines.device_memory import host_array, run_bound
from videonst.engines.providers import one_line, open_session
from videonst.errors import VideoNSTError
from videonst.frame import Pixels
from videonst.temporal.flow import Field, Plane, place_of, resample

log = logging.getLogger(__name__)

Levels = npt.NDArray[Any]
"""A painting in fractions of levels, float32 (H, W, 3)."""

CLAMP_WINDOW = 5
SLACK = 12
"""The history may leave the range of the new painting in a window of this side, pixels, by this many levels (the
neighbourhood clamp of temporal anti-aliasing, Karis 2014)."""

TRUSTED = 0.5
"""Trust from which a pixel counts when means are compared."""

STRIP = 32
"""Rows that are blended at a time."""

GRAPH = Path(__file__).with_name("carry.onnx")

TRIAL_SIDE = 32
"""Side of the picture, pixels, that a device must carry as the processor does before it is used."""

TRIAL_TOLERANCE = 1.0
"""Levels by which it may differ: OpenCV 4 rounds places to 1/32 pixel."""


@dataclass(frozen=True)
class Way:
    """How the picture came from the frame before, found at a working resolution (h, w).

    Attributes:
        motion: from every pixel to where it was, float32 (h, w, 2), x then y, in pixels of the full frame.
        trust: float32 (h, w), 0 to 1.
        follow: how much of the painting's own change of mean is followed at once, 0 to 1.
    """

    motion: Field
    trust: Plane
    follow: float


STANDSTILL = Way(np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.float32), 0.0)
"""Nothing has changed."""


class Carry(Protocol):
    """Carries the history. Where it and the painting lie is its own affair; `on_host` brings either down.

    Attributes:
        on_device: whether paintings are best left on the device.
    """

    on_device: bool

    def move(self, history: "Levels | OnDevice", way: Way) -> "Levels | OnDevice":
        """What can be done before the new painting is there, beside the engine that makes it."""
        ...

    def merge(
        self, painting: "Pixels | OnDevice", moved: "Levels | OnDevice", way: Way, share: float
    ) -> "tuple[Levels | OnDevice, Pixels]":
        """The painting with the history in it as far as that is trusted, and the same as it is shown.

        Args:
            painting: the new one.
            moved: what `move` gave.
            way: as for `move`.
            share: weight of a fully trusted history.
        """
        ...

    def settle(
        self, painting: "Pixels | OnDevice", history: "Levels | OnDevice", share: float
    ) -> "tuple[Levels | OnDevice, Pixels]":
        """As `merge`, where the frame is the same as before and `painting` has been merged already."""
        ...


def carry_for(engine: Engine, keep_colour: bool) -> Carry:
    """On the engine's device where that leaves paintings there and works; `keep_colour` is done on the processor."""
    if keep_colour or not isinstance(engine, KeepsOnDevice) or engine.memory is None:
        return _HOST
    carry = _tried(engine.memory)
    return _HOST if carry is None or carry.failed else carry


def on_host(picture: "npt.NDArray[Any] | OnDevice") -> npt.NDArray[Any]:
    """A painting or a history as an array (H, W, 3), wherever it lies.

    Raises:
        VideoNSTError: the device does not give it back.
    """
    if isinstance(picture, np.ndarray):
        return picture
    try:
        down: npt.NDArray[Any] = picture.numpy()[0]
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise VideoNSTError(f"the device does not give a picture back ({one_line(error)})") from error
    return down


def whole(history: Levels) -> Pixels:
    """In whole levels, as it is shown."""
    return cast(Pixels, cv2.convertScaleAbs(history))


class HostCarry:
    """A `Carry` with OpenCV."""

    on_device = False

    def move(self, history: "Levels | OnDevice", way: Way) -> Levels:
        """Moved; what stands still is copied."""
        history = on_host(history)
        motion = way.motion
        height, width = history.shape[:2]
        x, y = cv2.split(motion)
        moving = cv2.bitwise_or(cv2.compare(x, 0, cv2.CMP_NE), cv2.compare(y, 0, cv2.CMP_NE))  # type: ignore[call-overload]
        left, top, columns, rows = cv2.boundingRect(moving)
        if rows == 0:
            return history.copy()
        full = cv2.resize(motion, (width, height), interpolation=cv2.INTER_LINEAR)
        # Only the rectangle that moves, at once: OpenCV shares out one large picture better than many small ones.
        down = _span(top, rows, motion.shape[0], height)
        across = _span(left, columns, motion.shape[1], width)
        carried = resample(history, place_of(full)[down, across], cv2.INTER_CUBIC)
        if carried.shape == history.shape:
            return carried
        moved = history.copy()
        moved[down, across] = carried
        return moved

    def merge(
        self, painting: "Pixels | OnDevice", moved: "Levels | OnDevice", way: Way, share: float
    ) -> tuple[Levels, Pixels]:
        painting, history = on_host(painting), on_host(moved)
        height, width = painting.shape[:2]
        if way.follow > 0:
            cells = way.trust.shape[::-1]
            mask = (way.trust > TRUSTED).astype(np.uint8)
            now, then = (
                np.array(cv2.mean(cv2.resize(picture, cells, interpolation=cv2.INTER_NEAREST), mask))
                for picture in (painting, history)
            )
            cv2.add(history, way.follow * (now - then), dst=history)
        window = np.ones((CLAMP_WINDOW, CLAMP_WINDOW), np.uint8)
        lowest, highest = cv2.erode(painting, window), cv2.dilate(painting, window)
        weight = cv2.resize(way.trust * np.float32(share), (width, height), interpolation=cv2.INTER_LINEAR)
        for strip in _strips(height):
            part, new = history[strip], painting[strip].astype(np.float32)
            cv2.max(part, cv2.subtract(lowest[strip], _SLACK).astype(np.float32), dst=part)
            cv2.min(part, cv2.add(highest[strip], _SLACK).astype(np.float32), dst=part)
            cv2.subtract(part, new, dst=part)
            cv2.multiply(part, cv2.merge((weight[strip],) * 3), dst=part)
            cv2.add(part, new, dst=part)
        return history, whole(history)

    def settle(
        self, painting: "Pixels | OnDevice", history: "Levels | OnDevice", share: float
    ) -> tuple[Levels, Pixels]:
        settled: Levels = cv2.addWeighted(on_host(history), share, on_host(painting), 1 - share, 0, dtype=cv2.CV_32F)
        return settled, whole(settled)


class DeviceCarry:
    """A `Carry` by the graph of `GRAPH`, in the memory of a device. Where that fails, the processor does it.

    Args:
        memory: see `KeepsOnDevice`; the device of the same name computes.

    Attributes:
        failed: the device has not done it at least once, and is not to be asked again.

    Raises:
        InputError: the device cannot run the graph.
    """

    on_device = True

    def __init__(self, memory: str) -> None:
        self.failed = False
        self._memory = memory
        self._session = open_session(GRAPH, memory)

    def move(self, history: "Levels | OnDevice", way: Way) -> "Levels | OnDevice":
        """Nothing yet: the graph does both in one go."""
        return history

    def merge(
        self, painting: "Pixels | OnDevice", moved: "Levels | OnDevice", way: Way, share: float
    ) -> "tuple[Levels | OnDevice, Pixels]":
        feed = {
            "painting": _up(painting),
            "history": _up(moved),
            "motion": np.ascontiguousarray(way.motion.transpose(2, 0, 1)[None]),
            "trust": way.trust[None, None],
            "share": np.array([share], np.float32),
            "follow": np.array([way.follow], np.float32),
        }
        try:
            shown = host_array(_shape(painting), np.uint8, self._memory)
            (history,) = run_bound(self._session, feed, ("carried",), self._memory, into={"shown": shown})
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            self.failed = True
            _warn(self._memory, one_line(error))
            return _HOST.merge(painting, _HOST.move(moved, way), way, share)
        return history, shown[0]

    def settle(
        self, painting: "Pixels | OnDevice", history: "Levels | OnDevice", share: float
    ) -> "tuple[Levels | OnDevice, Pixels]":
        return self.merge(painting, history, STANDSTILL, share)


_HOST = HostCarry()


@functools.cache
def _tried(memory: str) -> DeviceCarry | None:
    """What carries in `memory`; None, and a warning, where it does not do what the processor does."""
    try:
        carry = DeviceCarry(memory)
        wrong = _difference(carry)
    except VideoNSTError as error:
        reason = str(error)
    else:
        if wrong <= TRIAL_TOLERANCE:
            return carry
        reason = f"a trial came back {wrong:.1f} levels off"
    _warn(memory, reason)
    return None


def _warn(memory: str, reason: str) -> None:
    log.warning("pictures are steadied on the processor, as %s does not do it: %s", memory, reason)


def _difference(carry: Carry) -> float:
    """Levels by which `carry` differs from the processor on waves of which one half moves, while the light changes."""
    row, column, channel = np.indices((TRIAL_SIDE, TRIAL_SIDE, 3), np.float32)
    waves = 128 + 60 * np.sin(column / 3 + channel) * np.cos(row / 4)
    painting = np.rint(waves + 20).astype(np.uint8)
    history = (waves + np.float32(0.25)).astype(np.float32)
    half = TRIAL_SIDE // 2
    motion, trust = np.zeros((half, half, 2), np.float32), np.ones((half, half), np.float32)
    motion[:, : half // 2] = 2.5, -1
    trust[: half // 4] = 0.25
    way = Way(motion, trust, 0.5)
    found, expected = (
        on_host(carrying.merge(painting, carrying.move(history, way), way, 0.75)[0]) for carrying in (carry, _HOST)
    )
    return float(np.abs(found - expected).max())


def _up(picture: "npt.NDArray[Any] | OnDevice") -> "npt.NDArray[Any] | OnDevice":
    """As the graph takes it."""
    return picture[None] if isinstance(picture, np.ndarray) else picture


def _shape(picture: "npt.NDArray[Any] | OnDevice") -> tuple[int, ...]:
    """As the graph has it."""
    return (1, *picture.shape) if isinstance(picture, np.ndarray) else tuple(picture.shape())


def _strips(height: int) -> Iterator[slice]:
    """Rows in portions that stay in the processor's cache from one operation to the next."""
    return (slice(row, min(row + STRIP, height)) for row in range(0, height, STRIP))


def _span(first: int, count: int, cells: int, pixels: int) -> slice:
    """The pixels that `count` cells of `cells` reach when enlarged to `pixels`."""
    size = pixels / cells
    return slice(max(int((first - 1) * size), 0), min(int((first + count + 1) * size) + 1, pixels))


_SLACK = np.full(4, SLACK, np.float64)
"""As a scalar of OpenCV."""
