"""What the window shows: the picture, and what a viewer wants to know written over it. Pictures in, picture out."""

from collections.abc import Sequence

import cv2
import numpy as np

from videonst.frame import Pixels
from videonst.live.painter import Painted

HELP = (
    "n / p   next, previous style",
    "space   original beside it",
    "c       keep colours",
    "s       snapshot",
    "r       record, stop recording",
    "f       full screen",
    "h       this help",
    "q       quit",
)

LINES_OF_TEXT = 22
"""The height of the picture in lines of text."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 30.0
"""Pixels from line to line at scale 1."""

WAITING_LEVEL = 24
"""Grey of the picture that is shown before the first frame."""

WHITE, RED = (255, 255, 255), (255, 110, 100)


def compose(
    painted: Painted,
    *,
    side_by_side: bool = False,
    status: Sequence[str] = (),
    trouble: str = "",
    recording: str = "",
    show_help: bool = False,
) -> Pixels:
    """
    Args:
        painted: what to show.
        side_by_side: the original on the left, at the same size.
        status: lines for the lower left.
        trouble: a line for the top, in red.
        recording: a word for the upper right, in red.
        show_help: the keys, over the middle.

    Returns:
        RGB, uint8, (H, W, 3), or (H, 2 W, 3) side by side. The painted frame itself is not written on.
    """
    pictures = [painted.original.pixels, painted.frame.pixels] if side_by_side else [painted.frame.pixels]
    view = np.hstack(pictures) if side_by_side else pictures[0].copy()
    step = view.shape[0] / LINES_OF_TEXT
    for index, line in enumerate(reversed(status)):
        _write(view, line, (0.4, LINES_OF_TEXT - 0.5 - index), WHITE)
    if trouble:
        _write(view, trouble, (0.4, 1.1), RED)
    if recording:
        width = cv2.getTextSize(recording, _FONT, step / _FONT_HEIGHT, 1)[0][0] / step
        _write(view, recording, (view.shape[1] / step - width - 0.6, 2.2 if trouble else 1.1), RED)
    if show_help:
        top = (LINES_OF_TEXT - 1.3 * len(HELP)) / 2
        first, last = int((top - 1.2) * step), int((top + 1.3 * len(HELP)) * step)
        view[first:last] //= 3
        for index, line in enumerate(HELP):
            key, _, meaning = line.partition("  ")
            _write(view, key, (1.5, top + 1.3 * index), WHITE)
            _write(view, meaning.strip(), (5.5, top + 1.3 * index), WHITE)
    return view


def waiting(size: tuple[int, int], line: str) -> Pixels:
    """A dark picture, (width, height) pixels, with a line: before the first frame is there."""
    width, height = size
    view: Pixels = np.full((height, width, 3), WAITING_LEVEL, np.uint8)
    _write(view, line, (0.8, LINES_OF_TEXT / 2), WHITE)
    return view


def _write(view: Pixels, text: str, place: tuple[float, float], colour: tuple[int, int, int]) -> None:
    """Text at (x, y of its base line) in lines of text, with a dark edge, so that it reads on any picture."""
    step = view.shape[0] / LINES_OF_TEXT
    scale = step / _FONT_HEIGHT
    x, y = round(place[0] * step), round(place[1] * step)
    thickness = max(1, round(scale))  # the letters of OpenCV 5 grow wider with it, so the edge is not drawn thicker
    edge = max(1, round(scale))
    for dx, dy in ((-edge, 0), (edge, 0), (0, -edge), (0, edge)):
        cv2.putText(view, text, (x + dx, y + dy), _FONT, scale, (0, 0, 0), thickness, cv2.LINE_AA)
    cv2.putText(view, text, (x, y), _FONT, scale, colour, thickness, cv2.LINE_AA)
