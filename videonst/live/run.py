"""The live filter itself: frames in, painted frames to window, files and other programs, until somebody has enough."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from videonst.errors import InputError
from videonst.live.capture import Capture
from videonst.live.controls import Controls
from videonst.live.latest import Closed
from videonst.live.loop import LiveLoop
from videonst.live.outlet import Outlet
from videonst.live.painter import Painted, Painter
from videonst.live.view import compose, waiting
from videonst.sinks import open_sink
from videonst.sources import SourceInfo

if TYPE_CHECKING:
    from videonst.live.window import Window

_log = logging.getLogger(__name__)

WAIT_SECONDS = 0.05
"""How long to wait for a frame before the window is looked after again."""

STATUS_SECONDS = 1.0

RECORDING_CRF, RECORDING_PRESET = 20.0, "superfast"
"""Of x264: little time beside the painting, and visually all but lossless."""


class LiveFilter:
    """Paints what a capture brings and hands it on. One call of `step` is one frame, or a moment without one.

    Args:
        capture: running.
        painter, controls: of this stream.
        window: None paints without one.
        outlets: fed with every painted frame; closed by their owner.
        folder: for snapshots and recordings.
        notice: told one line about what was done.

    Attributes:
        loop: with the meter.
        painted: frames so far.
    """

    def __init__(
        self,
        capture: Capture,
        painter: Painter,
        controls: Controls,
        *,
        window: "Window | None" = None,
        outlets: Sequence[Outlet] = (),
        folder: Path = Path(),
        notice: Callable[[str], None] = _log.info,
    ) -> None:
        self._capture, self._painter, self._controls = capture, painter, controls
        self._window, self._outlets, self._folder, self._notice = window, outlets, folder, notice
        self._recorder: Outlet | None = None
        self._record_path = Path()
        self._record_since = 0.0
        self._side_by_side = self._show_help = False
        self._last: Painted | None = None
        self.loop = LiveLoop(capture.box, painter)
        self.painted = 0
        self._keys: dict[str, Callable[[], object]] = {
            "n": lambda: controls.step_style(1),
            "p": lambda: controls.step_style(-1),
            " ": self._toggle_side_by_side,
            "c": controls.toggle_keep_colour,
            "s": self.snapshot,
            "r": self.toggle_recording,
            "h": self._toggle_help,
        }

    def run(
        self,
        seconds: float | None = None,
        *,
        record: Path | None = None,
        status: Callable[[str], None] | None = None,
    ) -> None:
        """Until the source ends, the window is closed, "q" is pressed or `seconds` are over. A recording is finished in
        any case.

        Args:
            seconds: after the first painted frame.
            record: a file to record to from the start.
            status: told what is achieved, every `STATUS_SECONDS`.

        Raises:
            InputError: the file to record to cannot be written.
            VideoNSTError: source, painting or an outlet failed.
        """
        if record is not None:
            self.record(record)
        end = told = 0.0
        try:
            while self.step():
                now = time.monotonic()
                end = end or (now + seconds if seconds is not None and self.painted else 0.0)
                if end and now >= end:
                    break
                if status and now - told >= STATUS_SECONDS:
                    told = now
                    status(self.status())
        finally:
            self.stop_recording()

    def step(self) -> bool:
        """One frame; False when it is over."""
        try:
            painted = self.loop.next(WAIT_SECONDS)
        except Closed:
            return False
        if painted is not None:
            self._hand_on(painted)
        if self._window is None:
            return True
        if painted is not None or self._capture.trouble:
            self._show(self._window)
        key = self._window.key()
        if key == "f":
            self._window.toggle_full_screen()
        elif key in self._keys:
            try:
                self._keys[key]()
            except InputError as error:  # such as a folder that has gone: no reason to end the show
                self._notice(str(error))
        return key != "q"

    def snapshot(self) -> None:
        """The last painted frame as a PNG file in the folder."""
        if self._last is None:
            return
        path = _free_name(self._folder, ".png")
        info = SourceInfo(None, self._last.frame.width, self._last.frame.height, is_still=True)
        with open_sink(path, info) as sink:
            sink.write(self._last.frame)
        self._notice(f"snapshot {path}")

    def toggle_recording(self) -> None:
        """Starts a recording in the folder, or ends it."""
        if self._recorder is None:
            self.record(_free_name(self._folder, ".mp4"))
        else:
            self.stop_recording()

    def record(self, path: Path, *, overwrite: bool = False) -> None:
        """Starts a recording.

        Raises:
            InputError: the file cannot be written.
        """
        info = self._capture.source.info
        told = SourceInfo(None, info.width, info.height, average_rate=info.average_rate)
        sink = open_sink(path, told, crf=RECORDING_CRF, preset=RECORDING_PRESET, overwrite=overwrite)
        self._recorder, self._record_path, self._record_since = Outlet(sink), path, time.monotonic()
        self._notice(f"recording to {path}")

    def stop_recording(self) -> None:
        """Ends the recording, if there is one, and lets the file appear.

        Raises:
            VideoNSTError: it could not be written.
        """
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.close()
            self._notice(f"recorded {recorder.frames} frames in {self._record_path}")

    def status(self) -> str:
        """What was chosen, and what it achieves."""
        return f"{self._chosen()}; {self.loop.meter.read()}"

    def _hand_on(self, painted: Painted) -> None:
        self._last = painted
        self.painted += 1
        for outlet in (*self._outlets, *((self._recorder,) if self._recorder else ())):
            outlet.put(painted.frame)

    def _show(self, window: "Window") -> None:
        trouble = self._capture.trouble
        if self._last is None:
            window.show(waiting((640, 360), trouble or "waiting for the first frame"))
            return
        settings = self._controls.read()
        colours = ", own colours" if settings.keep_colour else ""
        style = f"{settings.mix}{colours}" if settings.mix.strength else "untouched"
        view = compose(
            self._last,
            side_by_side=self._side_by_side,
            status=(style, self._chosen(), str(self.loop.meter.read())),
            trouble=trouble,
            recording=f"REC {time.monotonic() - self._record_since:.0f} s" if self._recorder else "",
            show_help=self._show_help,
        )
        window.show(view)

    def _chosen(self) -> str:
        return f"{'' if self._painter.pinned else 'auto: '}{self._painter.rung}"

    def _toggle_side_by_side(self) -> None:
        self._side_by_side = not self._side_by_side

    def _toggle_help(self) -> None:
        self._show_help = not self._show_help


def _free_name(folder: Path, suffix: str) -> Path:
    """A name with the time of day that no file has."""
    name = f"videonst-{datetime.now():%Y%m%d-%H%M%S}"
    number, path = 1, folder / f"{name}{suffix}"
    while path.exists() or path.with_name(f".{path.name}.part").exists():
        number += 1
        path = folder / f"{name}-{number}{suffix}"
    return path
