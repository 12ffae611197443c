"""Watching a picture grow: a preview that is refreshed, a film of the steps, a plot of the losses."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from fractions import Fraction
from importlib import util
from pathlib import Path

from videonst.atomic import replacing
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame, Pixels
from videonst.optimise.objective import Losses
from videonst.optimise.painter import Progress
from videonst.resize import scaled
from videonst.sinks import Sink, open_sink
from videonst.sinks.image import encode_picture
from videonst.sinks.sink import PICTURE_SUFFIXES, VIDEO_SUFFIXES

log = logging.getLogger(__name__)

PREVIEW_SECONDS = 2.0
"""Between two previews, at least."""

PLOT_SUFFIXES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp")

TIMELAPSE_RATE = 25
TIMELAPSE_FRAMES = 250
"""A film of more steps than these passes some over."""
TIMELAPSE_HOLD = 50
"""Frames for which the last picture stands."""


class Recorder:
    """Writes what is asked for, as `watch` of an engine.

    Args:
        preview: picture file that always holds the latest state; replaced in one go.
        timelapse: the film of the steps, and the sink that takes it.
        keep_losses: for `draw_losses`.
    """

    def __init__(
        self, preview: Path | None = None, timelapse: Sink | None = None, *, keep_losses: bool = False
    ) -> None:
        if preview and preview.suffix.lower() not in PICTURE_SUFFIXES:
            raise InputError(f"cannot write a preview to {preview.name}; use one of {', '.join(PICTURE_SUFFIXES)}")
        if preview and not preview.parent.is_dir():
            raise InputError(f"there is no directory {preview.parent}; create it first")
        self._preview, self._timelapse, self._keep_losses = preview, timelapse, keep_losses
        self._previewed = -math.inf
        self._written = 0
        self.losses: list[Losses] = []

    def __call__(self, progress: Progress) -> None:
        if self._keep_losses:
            self.losses.append(progress.losses)
        now = time.monotonic()
        is_last = progress.step == progress.steps
        if self._preview and (is_last or now - self._previewed >= PREVIEW_SECONDS):
            self._previewed = now
            self._show(self._preview, progress.picture())
        if self._timelapse and progress.step % math.ceil(progress.steps / TIMELAPSE_FRAMES) == 0:
            self._add(progress.picture(), progress.full_size)

    def end(self, result: Pixels) -> None:
        """Lets the result stand at the end of the film."""
        for _ in range(TIMELAPSE_HOLD if self._timelapse else 0):
            self._add(result, (result.shape[1], result.shape[0]))

    def _show(self, preview: Path, picture: Pixels) -> None:
        try:
            with replacing(preview) as part:
                part.write_bytes(encode_picture(Frame(picture), preview.suffix))
        except OSError as error:  # no reason to lose the work
            log.warning("no more previews: cannot write %s: %s", preview, error.strerror)
            self._preview = None

    def _add(self, picture: Pixels, size: tuple[int, int]) -> None:
        assert self._timelapse is not None
        even = max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2)
        self._timelapse.write(
            Frame(scaled(picture, even), pts=self._written, time_base=Fraction(1, TIMELAPSE_RATE), duration=1)
        )
        self._written += 1


@contextlib.contextmanager
def open_timelapse(path: Path | None, *, overwrite: bool) -> Iterator[Sink | None]:
    """
    Raises:
        InputError: the file cannot be written, or is no video.
    """
    if path is None:
        yield None
        return
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(f"cannot write a timelapse to {path.name}; use one of {', '.join(VIDEO_SUFFIXES)}")
    with open_sink(path, overwrite=overwrite) as sink:
        yield sink


def check_plot(path: Path) -> None:
    """
    Raises:
        InputError: `draw_losses` could not write there: no matplotlib, another kind of file, or no such directory.
    """
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise InputError(f"cannot write a plot to {path.name}; use one of {', '.join(PLOT_SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"there is no directory {path.parent}; create it first")
    if util.find_spec("matplotlib") is None:
        raise InputError("the plot needs matplotlib; run: pip install 'videonst[train]'")


def draw_losses(path: Path, losses: list[Losses]) -> None:
    """The losses over the steps, as a picture; see `check_plot`.

    Raises:
        VideoNSTError: the disk fails.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in ("total", "content", "style", "temporal"):
        values = [getattr(loss, name) for loss in losses]
        if any(value > 0 for value in values):
            axes.plot(range(1, len(values) + 1), values, label=name, linewidth=1)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    try:
        with replacing(path) as part:
            figure.savefig(part, format=path.suffix.lstrip(".").lower(), dpi=110)
    except OSError as error:
        raise VideoNSTError(f"cannot write the plot {path}: {error.strerror}") from error
