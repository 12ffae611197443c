"""From a box of frames to painted frames, one at a time, with what a viewer feels measured on the way."""

import time
from collections.abc import Callable

from videonst.frame import Frame
from videonst.live.latest import Latest
from videonst.live.meter import Meter
from videonst.live.painter import Painted, Painter


class LiveLoop:
    """Takes the newest frame, paints it and hands it out; the next call tells that the result has been dealt with.

    Runs in the thread that calls it, so that a window stays where it was made.

    Args:
        box: where frames come from.
        painter: of this stream.
        clock: seconds, monotonic; the box's.

    Attributes:
        meter: of this stream.
        delay: of the last frame, seconds from its arrival to its result.
    """

    def __init__(self, box: Latest[Frame], painter: Painter, clock: Callable[[], float] = time.monotonic) -> None:
        self._box, self._painter, self._clock = box, painter, clock
        self._pending: tuple[Painted, float] | None = None
        self._drops = 0
        self.meter = Meter(clock=clock)
        self.delay = 0.0

    def next(self, timeout: float) -> Painted | None:
        """The newest frame, painted; None where none came within `timeout` seconds.

        Raises:
            Closed: the box is closed.
            VideoNSTError: painting failed, or the source did.
        """
        self._finish()
        arrival = self._box.take(timeout)
        if arrival is None:
            return None
        began = self._clock()
        painted = self._painter.paint(arrival.item)
        self._pending = painted, began
        drops = self._box.drops
        self.delay = self._clock() - arrival.time
        self.meter.shown(self.delay, drops - self._drops)
        self._drops = drops
        return painted

    def _finish(self) -> None:
        if self._pending:
            painted, began = self._pending
            self._painter.done(painted, self._clock() - began)
            self._pending = None
