"""One session's frames: decoded, repainted, encoded."""

import time
from fractions import Fraction

from videonst.frame import Frame
from videonst.live.painter import Engines, Painter
from videonst.web.controls import Board
from videonst.web.picture import decode, encode
from videonst.web.protocol import MAX_FRAME_PIXELS, Shown

TIME_BASE = Fraction(1, 1_000_000)
"""Frames of browsers are stamped in microseconds when they arrive."""


class FramePainter:
    """Keeps what lies between the frames of one session. Used by one thread at a time.

    Args:
        engines: shared by all sessions.
        board: the controls, read anew for every frame.
    """

    def __init__(self, engines: Engines, board: Board) -> None:
        self._board = board
        self._painter = Painter(engines, board.controls)

    def paint_encoded(self, sequence: int, data: bytes, arrived: float) -> Shown:
        """Repaints a JPEG or WebP frame that arrived at that time (`time.monotonic`).

        Raises:
            InputError: a frame that cannot be read, of a size that is not taken.
            VideoNSTError: the device failed.
        """
        began = time.monotonic()
        pixels = decode(data, max_pixels=MAX_FRAME_PIXELS)
        frame = Frame(pixels, round(arrived / TIME_BASE), TIME_BASE)
        return self._paint(sequence, frame, arrived, began, with_original=False)

    def paint(self, sequence: int, frame: Frame, arrived: float, *, with_original: bool) -> Shown:
        """Repaints a frame of the server's own source, and encodes the original beside it where wanted.

        Raises:
            VideoNSTError: the device failed.
        """
        return self._paint(sequence, frame, arrived, time.monotonic(), with_original=with_original)

    def _paint(self, sequence: int, frame: Frame, arrived: float, began: float, *, with_original: bool) -> Shown:
        encoding, revision = self._board.encoding, self._board.revision
        painted = self._painter.paint(frame)
        picture = encode(painted.frame.pixels, encoding.format, encoding.quality)
        original = encode(frame.pixels, encoding.format, encoding.quality) if with_original else b""
        seconds = time.monotonic() - began
        self._painter.done(painted, seconds)
        return Shown(sequence, revision, began - arrived, seconds, picture, original, painted.rung)
