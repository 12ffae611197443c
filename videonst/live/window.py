"""The native window: the picture, a slider for everything, and the keys that were pressed.

Import this before anything that imports PyAV: both bring libraries of their own, and with some versions a window that
opens after PyAV was imported freezes on Linux (PyAV issue 978).
"""

import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from videonst.errors import VideoNSTError
from videonst.frame import Pixels
from videonst.live.controls import Controls, Settings
from videonst.styles import MAX_STRENGTH

TITLE = "videonst"
CONTROLS_TITLE = "videonst: styles"

STEPS = 100
"""Of a slider from 0 to 1."""

CONTROLS_WIDTH = 420
"""Pixels."""

GAP = 20
"""Between the two windows at first, pixels."""

FONT_FOLDERS = ("/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/dejavu", "/usr/share/fonts/TTF")
"""Where Linux keeps fonts that Qt can read: OpenCV's wheels point Qt to a folder that they do not bring."""

MAX_LINES = 1080
"""A larger picture is scaled down to this height, pixels."""

_WINDOW = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL


class Window:
    """A window with the picture and one with the sliders. All calls belong into one thread, the main one on macOS.

    Args:
        controls: moved by the sliders; sliders follow where others move them.
        size: of the picture at first, (width, height), pixels.
        full_screen: start so.

    Raises:
        VideoNSTError: there is no screen, or this OpenCV has no windows.
    """

    def __init__(self, controls: Controls, size: tuple[int, int], *, full_screen: bool = False) -> None:
        self._controls = controls
        self._seen_revision = -1
        self._following = False
        self._full_screen = False
        _require_screen()
        _find_fonts()
        try:
            cv2.namedWindow(TITLE, _WINDOW)
            cv2.resizeWindow(TITLE, *size)
            self._shown_size = size
            self._add_sliders()
            cv2.moveWindow(CONTROLS_TITLE, size[0] + GAP, 0)
            if full_screen:
                self.toggle_full_screen()
            self.follow()
        except cv2.error as error:
            raise VideoNSTError(
                f"cannot open a window ({error.err or error}); install opencv-python instead of "
                "opencv-python-headless, or use --no-window, or `videonst serve`"
            ) from error

    def show(self, view: Pixels) -> None:
        """Shows RGB pixels, (H, W, 3), scaled to the window, which is resized where the proportions change."""
        height, width = view.shape[:2]
        if (width, height) != self._shown_size:
            self._shown_size = width, height
            lines = min(height, MAX_LINES)
            if not self._full_screen:
                cv2.resizeWindow(TITLE, width * lines // height, lines)
        if cv2.currentUIFramework() != "QT":  # which keeps proportions, and says where the picture is, not the window
            _, _, window_width, window_height = cv2.getWindowImageRect(TITLE)
            view = _bordered(view, window_width, window_height)
        cv2.imshow(TITLE, cv2.cvtColor(view, cv2.COLOR_RGB2BGR))

    def key(self) -> str:
        """The key pressed since the last call, lower case; "" for none. Lets the windows do their work.

        Closing the picture's window is "q".
        """
        code = cv2.waitKey(1)
        if cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            return "q"
        self.follow()
        return chr(code & 0xFF).lower() if code >= 0 else ""

    def toggle_full_screen(self) -> None:
        self._full_screen = not self._full_screen
        mode = cv2.WINDOW_FULLSCREEN if self._full_screen else cv2.WINDOW_NORMAL
        cv2.setWindowProperty(TITLE, cv2.WND_PROP_FULLSCREEN, mode)

    def follow(self) -> None:
        """Puts the sliders where the controls are."""
        revision = self._controls.revision
        if revision == self._seen_revision:
            return
        self._seen_revision = revision
        self._following = True  # a slider that is put somewhere reports it as if it had been moved
        try:
            for name, position in _positions(self._controls.read()).items():
                if cv2.getTrackbarPos(name, CONTROLS_TITLE) != position:
                    cv2.setTrackbarPos(name, CONTROLS_TITLE, position)
        except cv2.error:  # somebody has closed the window of the sliders
            pass
        finally:
            self._following = False

    def close(self) -> None:
        cv2.destroyAllWindows()
        cv2.waitKey(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add_sliders(self) -> None:
        cv2.namedWindow(CONTROLS_TITLE, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
        controls = self._controls
        for style in controls.styles:
            self._add(style, STEPS, partial(controls.set_share, style))
        self._add(STRENGTH, round(MAX_STRENGTH * STEPS), lambda value: controls.change(strength=value))
        self._add(STEADINESS, STEPS, lambda value: controls.change(steady=value))
        cv2.imshow(CONTROLS_TITLE, np.full((1, CONTROLS_WIDTH, 3), 40, np.uint8))  # gives the window its width

    def _add(self, name: str, steps: int, move: Callable[[float], Settings]) -> None:
        def moved(position: int) -> None:
            if not self._following:
                move(position / STEPS)

        start = _positions(self._controls.read())[name]
        self._following = True
        cv2.createTrackbar(name, CONTROLS_TITLE, start, steps, moved)
        self._following = False


STRENGTH, STEADINESS = "strength", "steadiness"


def _positions(settings: Settings) -> dict[str, int]:
    """Where each slider stands."""
    positions = {name: round(share * STEPS) for name, share in settings.shares}
    return positions | {STRENGTH: round(settings.strength * STEPS), STEADINESS: round(settings.steady * STEPS)}


def _bordered(view: Pixels, width: int, height: int) -> Pixels:
    """With black borders that give it the proportions of a window: not every window system keeps the picture's."""
    lines, columns = view.shape[:2]
    if width <= 0 or height <= 0:
        return view
    wide, high = max(columns, round(lines * width / height)), max(lines, round(columns * height / width))
    x, y = (wide - columns) // 2, (high - lines) // 2
    if x <= 1 and y <= 1:
        return view
    return cv2.copyMakeBorder(view, y, y, x, x, cv2.BORDER_CONSTANT)  # type: ignore[return-value]


def _require_screen() -> None:
    """Qt ends the whole process where it finds none."""
    if platform.system() != "Linux" or os.environ.get("QT_QPA_PLATFORM"):
        return
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise VideoNSTError(
            "there is no screen to open a window on (DISPLAY is not set); "
            "use --no-window with --record, --out or --virtual-camera, or `videonst serve`"
        )


def _find_fonts() -> None:
    if sys.platform != "linux" or Path(os.environ.get("QT_QPA_FONTDIR", "")).is_dir():
        return
    folder = next((folder for folder in FONT_FOLDERS if Path(folder).is_dir()), None)
    if folder:
        os.environ["QT_QPA_FONTDIR"] = folder
    else:
        os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")  # says the same for every label
