"""A box for one frame between a thread that captures and one that paints."""

import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Arrival(NamedTuple, Generic[T]):
    """What was taken from a box, and when it had come, in seconds on the box's clock."""

    item: T
    time: float


class Closed(Exception):  # noqa: N818 - the end of a stream, not a failure
    """The box is closed and empty."""


class Latest(Generic[T]):
    """Holds the newest item only. An item that was not taken before the next one came is dropped and counted, so
    nothing can queue up and delay never builds up.

    Args:
        clock: seconds, monotonic; stamps what comes.

    Attributes:
        drops: items that nobody took.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._arrival: Arrival[T] | None = None
        self._closed = False
        self._error: BaseException | None = None
        self.drops = 0

    def put(self, item: T) -> None:
        """Replaces what is in the box. After closing, items are let fall without being counted."""
        with self._changed:
            if self._closed:
                return
            if self._arrival is not None:
                self.drops += 1
            self._arrival = Arrival(item, self._clock())
            self._changed.notify()

    def take(self, timeout: float) -> Arrival[T] | None:
        """The newest item, waiting up to `timeout` seconds for one; None if none came.

        Raises:
            Closed: closed, and the last item was taken.
            BaseException: the one that the box was closed with.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._arrival is not None or self._closed, timeout)
            arrival, self._arrival = self._arrival, None
            if arrival is None and self._closed:
                raise self._error or Closed
            return arrival

    def close(self, error: BaseException | None = None) -> None:
        """No more items will come; whoever waits wakes. The first `error` given reaches the taker."""
        with self._changed:
            self._closed = True
            self._error = self._error or error
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed
