"""Which part of a clip is wanted."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from videonst.errors import InputError

Time = str | float | Fraction
"""Seconds, or text: seconds or [HH:]MM:SS, both with decimals. Read in decimal, so that 0.1 is exactly a tenth."""


@dataclass(frozen=True)
class Trim:
    """A part of a clip: the frames shown from `start` on and before `end`, in seconds, exact.

    Attributes:
        start: None keeps the beginning, and its times.
        end: None keeps the rest.
    """

    start: Fraction | None = None
    end: Fraction | None = None

    @classmethod
    def parse(cls, start: Time | None = None, end: Time | None = None, duration: Time | None = None) -> "Trim":
        """From what a user gives: no, one or two of the three.

        Raises:
            InputError: not a time, both `end` and `duration`, or nothing between start and end.
        """
        if end is not None and duration is not None:
            raise InputError("end and duration were both given; give one of them")
        first = _seconds(start) if start is not None else None
        last = _seconds(end) if end is not None else None
        if duration is not None:
            last = (first or 0) + _seconds(duration)
            end = duration
        if last is not None and last <= (first or 0):
            raise InputError(
                f"nothing lies between start {start or 0} and {'end' if duration is None else 'duration'} {end}; "
                "expected an end after the start, or a duration above 0"
            )
        return cls(first, last)


WHOLE = Trim()


def _seconds(time: Time) -> Fraction:
    if isinstance(time, str):
        match = _TIME.fullmatch(time.strip())
        if match:
            hours, minutes, seconds = match.groups(default="0")
            return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    elif 0 <= time < math.inf:
        return Fraction(str(time))
    raise InputError(f"cannot read {str(time)!r} as a time; expected seconds (90.5) or [HH:]MM:SS (1:30.5)")


_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")
