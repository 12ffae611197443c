"""From a frame and the controls to a painted frame of the same size, at the quality that the machine can hold."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from videonst.engines import Engine
from videonst.engines.metadata import StyleInfo, read_metadata
from videonst.engines.onnx import OnnxEngine
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.live.controls import AUTO, Controls
from videonst.live.quality import DEFAULT_RATE, QualityController, Rung, ladder
from videonst.models import find_model, list_models
from videonst.resize import scaled
from videonst.temporal import Stabiliser

TIERS = ("full", "fast", "tiny")
"""What `auto` chooses from, best first."""


LOADING_SECONDS = 60.0
"""A model that takes longer to load is not waited for at the end of the program."""


class Engines:
    """Engines by model, each loaded when it is first asked for and kept. May be shared by several painters.

    Args:
        model: path of the one model to use; `AUTO` or one of the `TIERS` takes all of these that are installed.
        device: as in `videonst.load`; where "auto", the first engine decides for all.
        threads: of the CPU; None takes the physical cores.

    Attributes:
        models: names, best first.
        styles: of the models, which all hold the same.

    Raises:
        InputError: no such model.
    """

    def __init__(self, model: str | Path = AUTO, device: str = "auto", threads: int | None = None) -> None:
        self._device, self._threads = device, threads
        self._loaded: dict[str, Engine] = {}
        self._lock = threading.Lock()
        if model == AUTO or model in TIERS:
            shipped = {known.name: known.metadata for known in list_models()}
            found = {tier: shipped[tier] for tier in TIERS if tier in shipped}
        else:
            found = {str(model): read_metadata(find_model(model))}
        if not found:
            raise InputError("no models are installed; install videonst again, or name an .onnx file with --model")
        self.styles: tuple[StyleInfo, ...] = next(iter(found.values())).styles
        names = self.style_names
        self.models = tuple(name for name, metadata in found.items() if metadata.style_names == names)

    @property
    def style_names(self) -> tuple[str, ...]:
        return tuple(style.name for style in self.styles)

    @property
    def device(self) -> str:
        """Where the engines run, "auto" until the first is loaded."""
        return self._device

    @contextlib.contextmanager
    def loading(self, model: str) -> Iterator[None]:
        """Loads an engine beside what happens in the block. `get` waits for it, and reports what went wrong."""

        def load() -> None:
            with contextlib.suppress(VideoNSTError):
                self.get(model)

        thread = threading.Thread(target=load, name="videonst-load", daemon=True)
        thread.start()
        try:
            yield
        finally:  # ONNX Runtime aborts a process that ends while it loads
            thread.join(LOADING_SECONDS)

    def adopt(self, model: Path) -> None:
        """Paints with this one model from now on, on a CPU with the 8-bit file beside it (`NAME.int8.onnx`) where that
        holds the same styles. Styles and models change; what was loaded before goes when nobody paints with it.

        Raises:
            InputError: no such file, no videonst model, or it does not work on the device.
        """
        quick = model.with_suffix(".int8.onnx")
        is_same = quick.is_file() and read_metadata(quick).style_names == read_metadata(model).style_names
        engine = OnnxEngine(quick if is_same and self._device == "cpu" else model, self._device, self._threads)
        with self._lock:
            self._loaded = {str(model): engine}
            self.styles, self.models = engine.description.styles, (str(model),)

    def get(self, model: str) -> Engine:
        """
        Raises:
            InputError: the device does not work here, or the file is no videonst model.
        """
        with self._lock:
            if model not in self._loaded:
                engine = OnnxEngine(model, self._device, self._threads, cpu_precision="int8")
                self._device = engine.description.device
                self._loaded[model] = engine
            return self._loaded[model]


@dataclass(frozen=True)
class Painted:
    """A result.

    Attributes:
        frame: the painted frame.
        original: the frame that came; same size and moment.
        rung: how it was painted.
        fresh: the network ran for it; not where it is to be left untouched, or equal to the frame before.
    """

    frame: Frame
    original: Frame
    rung: Rung
    fresh: bool


class Painter:
    """Paints the frames of one stream. Not thread-safe; the controls may be turned from anywhere.

    Args:
        engines: shared with other painters, or not.
        controls: read anew for every frame.
        rate: frames per second to hold.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        engines: Engines,
        controls: Controls,
        rate: float = DEFAULT_RATE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engines, self._controls = engines, controls
        self._rate, self._clock = rate, clock
        self._stabiliser: Stabiliser | None = None
        self._quality: QualityController | None = None
        self._offered: tuple[Sequence[str], int | None, int] | None = None

    @property
    def rung(self) -> Rung | None:
        """What is painted with at present; None before the first frame."""
        return self._quality.rung if self._quality else None

    @property
    def pinned(self) -> bool:
        """There is nothing to choose."""
        return self._quality is not None and self._quality.pinned

    def paint(self, frame: Frame) -> Painted:
        """The frame repainted as the controls say. Its size never changes, whatever the working size is.

        Raises:
            VideoNSTError: the device does not work, or failed.
        """
        settings = self._controls.read()
        quality = self._choose(settings.model, settings.lines, min(frame.height, frame.width))
        rung = quality.rung
        if settings.mix.strength == 0:
            self._stabiliser = None
            return Painted(frame, frame, rung, fresh=False)
        stabiliser = self._stabilised(rung.model)
        stabiliser.steady = settings.steady
        painted = stabiliser.stylize(_shrunk(frame, rung.lines), settings.mix)
        pixels = scaled(painted.pixels, (frame.width, frame.height))
        return Painted(frame.with_pixels(pixels), frame, rung, stabiliser.last_painted)

    def done(self, painted: Painted, seconds: float) -> bool:
        """Tells how long a frame kept its taker busy, painting and showing; the quality follows.

        Returns:
            Whether the quality changed.
        """
        if self._quality is None or painted.rung != self._quality.rung:
            return False
        return self._quality.record(seconds, painted=painted.fresh)

    def _stabilised(self, model: str) -> Stabiliser:
        """With the engine of `model`; what was painted goes along where that holds the same styles."""
        engine = self._engines.get(model)
        if self._stabiliser is None or _names(self._stabiliser) != _names(engine):
            self._stabiliser = Stabiliser(engine)
        self._stabiliser.engine = engine
        return self._stabiliser

    def _choose(self, model: str, lines: int | None, frame_lines: int) -> QualityController:
        """The controller, with the rungs that the controls allow for frames of this size."""
        models: Sequence[str] = self._engines.models if model == AUTO else (model,)
        asked = (models, lines, frame_lines)
        if self._quality is None or asked != self._offered:
            self._offered = asked
            rungs = ladder(models, frame_lines, lines)
            if self._quality is None:
                self._quality = QualityController(rungs, self._rate, self._clock)
            else:
                self._quality.offer(rungs)
        return self._quality


def _names(engine: Engine) -> list[str]:
    return [style.name for style in engine.description.styles]


def _shrunk(frame: Frame, lines: int) -> Frame:
    """With a shorter side of `lines`, or as it is where that is no less."""
    scale = lines / min(frame.height, frame.width)
    if scale >= 1:
        return frame
    return frame.with_pixels(scaled(frame.pixels, (round(frame.width * scale), round(frame.height * scale))))
