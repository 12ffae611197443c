"""The fast engine: an exported network on ONNX Runtime."""

import contextlib
import copy
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from videonst.engines import EngineDescription, OnDevice, Statistics, as_array, trial
from videonst.engines.colour import keep_colour
from videonst.engines.cuda_graphs import CudaGraphs
from videonst.engines.device_memory import host_array, run_bound
from videonst.engines.held import HeldSession
from videonst.engines.metadata import ModelMetadata, held_model, read_metadata
from videonst.engines.providers import (
    AUTO_ORDER,
    HALF_DEVICES,
    MEMORY,
    PROVIDERS,
    DeviceError,
    one_line,
    open_session,
)
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame, Pixels
from videonst.models import find_model
from videonst.processor import usable_cores
from videonst.styles import StyleMix

log = logging.getLogger(__name__)

REMEMBERED_MIXES = 64

HELD_DEVICES = ("cuda", "cpu")
"""Devices with a session for frames whose statistics are held entirely. Others compile a graph before they run it,
TensorRT for minutes."""

GRAPH_SIZES = 4
"""Sizes of frames whose CUDA graphs are kept: each takes a session and the memory of several frames."""

PIXELS_AT_ONCE = 1280 * 720
"""Of all frames that a processor paints side by side: memory grows with them, and so does the time until Ctrl-C is
heeded. Larger frames are shared out among the cores one by one, which is as quick with them."""

DEVICE_FRAMES_AT_ONCE, DEVICE_PIXELS_AT_ONCE = 2, 2 * 1920 * 1088
"""The same on a GPU, whose memory is taken for each of them."""

_Weights = npt.NDArray[np.float32]
_Result = TypeVar("_Result")


class OnnxEngine:
    """Repaints frames with a model file. May be used from several threads.

    Args:
        model: name of a shipped model, such as "fast", or path of an .onnx file. A name picks the precision that
            suits the device.
        device: "auto" (the best that works; for a model in 8 bits the CPU), "cuda", "tensorrt", "coreml" or "cpu".
        threads: of the CPU; None takes the physical cores that this process may use.
        cpu_precision: of a shipped model on the CPU: "fp32" as trained, or "int8", which is more than twice as
            fast where the processor has 8-bit dot products and paints 1 to 3 levels differently.

    Attributes:
        metadata: what the model file says about itself.
        path: of the model file that was taken.
        memory: see `KeepsOnDevice`.
        session: ONNX Runtime's, for measurements.
        graphs, held_graphs: what `capture_graphs` has recorded, by (height, width), oldest first; the latter for frames
            whose statistics are held entirely.

    Raises:
        InputError: no such model or device; a device that does not work here, or not with 8 bits; a file that is no
            videonst model.
    """

    def __init__(
        self, model: str | Path, device: str = "auto", threads: int | None = None, *, cpu_precision: str = "fp32"
    ) -> None:
        self._cpu_precision = cpu_precision
        self._threads = threads
        self._twins: dict[int, OnnxEngine] = {}
        self.graphs: dict[tuple[int, int], CudaGraphs] = {}
        self.held_graphs: dict[tuple[int, int], CudaGraphs] = {}
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}, expected 1 or more")
        if device == "auto":
            self._open_best(model, threads)
        else:
            self._open(model, device, threads)
        names = self.metadata.style_names
        self._weights = functools.lru_cache(maxsize=REMEMBERED_MIXES)(lambda mix: mix.weights(names))

    @property
    def description(self) -> EngineDescription:
        return EngineDescription(
            name=self.metadata.tier,
            styles=self.metadata.styles,
            size=self.metadata.size,
            device=self._device,
            precision=self.metadata.precision,
            fingerprint=self._fingerprint,
        )

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        """The same moment repainted, with the same size. At strength 0 it is the frame itself, untouched.

        Raises:
            InputError: a style that the model does not hold, or a frame smaller than the model's minimum.
            VideoNSTError: the device failed, such as for want of memory.
        """
        if self.memory is None:
            return self._paint(frame, mix, lambda weights: _run(self.session, frame.pixels, weights))
        return self._paint(frame, mix, lambda weights: self._down(frame.pixels, weights, None, 0.0)[0])

    def stylize_holding(
        self, frame: Frame, mix: StyleMix, statistics: Statistics | None, hold: float
    ) -> tuple[Frame, Statistics | None]:
        """See `HoldsStatistics`. Model files of before that normalise as `stylize` does, and give None."""
        if not self._holds:
            return self.stylize(frame, mix), None
        used = statistics

        def run(weights: _Weights) -> Pixels:
            nonlocal used
            pixels, used = self._down(frame.pixels, weights, statistics, hold)
            return pixels

        return self._paint(frame, mix, run), used

    def side_by_side(self, width: int, height: int) -> tuple["OnnxEngine", int]:
        """See `PaintsSideBySide`: on a processor each frame keeps to its cores, where none waits for the others; on a
        GPU one is brought up while another is painted."""
        pixels = max(width * height, 1)
        if self._device in MEMORY:
            return self, min(max(DEVICE_PIXELS_AT_ONCE // pixels, 1), DEVICE_FRAMES_AT_ONCE)
        cores = self._threads or usable_cores()
        painters = min(cores, PIXELS_AT_ONCE // pixels) if self._device == "cpu" else 1
        if painters <= 1:
            return self, 1
        threads = cores // painters
        if threads not in self._twins:  # opened once, however many inputs there are
            twin = copy.copy(self)
            twin.session, twin._twins = open_session(self.path, "cpu", threads), {}
            twin._held = self._held.beside(threads, twin.session)
            self._twins[threads] = twin
        return self._twins[threads], painters

    def stylize_on_device(
        self, frame: Frame, mix: StyleMix, statistics: Statistics | OnDevice | None, hold: float
    ) -> tuple[OnDevice, Statistics | OnDevice | None]:
        """See `KeepsOnDevice`."""
        weights = self._checked(frame, mix)
        with self._reporting(frame):
            session, feed, _ = self._call(frame.pixels, weights, statistics, hold)
            graphs = (self.graphs if session is self.session else self.held_graphs).get(frame.pixels.shape[:2])
            if graphs and (painted := graphs.paint(feed)):
                painting, used = painted
                return painting, statistics if session is not self.session else used
            return self._leave(self.memory or "cpu", frame.pixels, weights, statistics, hold)

    def capture_graphs(self, width: int, height: int) -> bool:
        """Has `stylize_on_device` paint frames of this size from CUDA graphs: nearly all frames of a steadied film. The
        last `GRAPH_SIZES` sizes that were asked for are kept. Nothing else in this process may use the GPU meanwhile,
        neither other engines nor codecs.

        Returns:
            Whether it works; a warning says why not.

        Raises:
            InputError: the device is not "cuda".
        """
        if self._device != "cuda":
            raise InputError(f"CUDA graphs are for the device cuda; this engine paints on {self._device}")
        size = (height, width)
        try:
            self._capture(self.graphs, self.path, size)
            if self.held_session() and self._held.model:
                self._capture(self.held_graphs, self._held.model, size)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            log.warning("frames of %dx%d are painted without CUDA graphs: %s", width, height, one_line(error))
            for graphs in (self.graphs, self.held_graphs):
                if size in graphs:
                    graphs.pop(size).close()
        return size in self.graphs

    def _capture(self, graphs: dict[tuple[int, int], CudaGraphs], model: Path | bytes, size: tuple[int, int]) -> None:
        kept = graphs.pop(size, None)
        while len(graphs) >= GRAPH_SIZES:
            graphs.pop(next(iter(graphs))).close()
        if kept is None or kept.failed:
            if self.memory is None:
                raise VideoNSTError("paintings are not left on the device")
            session = open_session(model, "cuda", self._threads, cuda_graphs=True)
            sides = {"height": size[0], "width": size[1], "slots": len(self.metadata.styles) + 1}
            kept = CudaGraphs(session, sides, self.memory)
        graphs[size] = kept

    def held_session(self) -> ort.InferenceSession | None:
        """What paints frames whose statistics are held entirely, for measurements; None where `session` does."""
        return self._held.get()

    def _paint(self, frame: Frame, mix: StyleMix, run: Callable[[_Weights], Pixels]) -> Frame:
        weights = self._checked(frame, mix)
        if mix.strength == 0:
            return frame
        with self._reporting(frame):
            painted = run(weights)
        return frame.with_pixels(keep_colour(painted, frame.pixels) if mix.keep_colour else painted)

    def _down(
        self, pixels: Pixels, weights: _Weights, statistics: Statistics | OnDevice | None, hold: float
    ) -> tuple[Pixels, Statistics | None]:
        """Paints into the processor's memory, and gives the statistics that were used, if there are any."""

        def down(
            session: ort.InferenceSession, feed: dict[str, Any], names: tuple[str, ...]
        ) -> tuple[Pixels, Statistics | None]:
            if self.memory is None:
                painted, *used = session.run(["stylized", *names], feed)
            else:
                painted = host_array((1, *pixels.shape), np.uint8, self.memory)
                used = [left.numpy() for left in run_bound(session, feed, names, self.memory, {"stylized": painted})]
            return painted[0], used[0] if used else as_array(statistics)

        return self._by_either(down, pixels, weights, statistics, hold)

    def _leave(
        self, memory: str, pixels: Pixels, weights: _Weights, statistics: Statistics | OnDevice | None, hold: float
    ) -> tuple[OnDevice, Statistics | OnDevice | None]:
        """Paints, and leaves painting and statistics in `memory`."""

        def leave(
            session: ort.InferenceSession, feed: dict[str, Any], names: tuple[str, ...]
        ) -> tuple[OnDevice, Statistics | OnDevice | None]:
            painted, *used = run_bound(session, feed, ("stylized", *names), memory)
            return painted, used[0] if used else statistics

        return self._by_either(leave, pixels, weights, statistics, hold)

    def _by_either(
        self, run: Callable[[ort.InferenceSession, dict[str, Any], tuple[str, ...]], _Result], *asked: Any
    ) -> _Result:
        """What `run` makes of a call; of one of the whole graph where the second has failed, such as for want of
        memory."""
        session, feed, names = self._call(*asked)
        try:
            return run(session, feed, names)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            if session is self.session:
                raise
            self._held.give_up(one_line(error))
            return run(*self._call(*asked))

    def _call(
        self, pixels: Pixels, weights: _Weights, statistics: Statistics | OnDevice | None, hold: float
    ) -> tuple[ort.InferenceSession, dict[str, Any], tuple[str, ...]]:
        """The session that paints such a frame, its inputs, and what it gives besides the painting: where that is not
        the statistics that were used, these are those that were given."""
        feed = _feed(pixels, weights, statistics, hold)
        if statistics is None or hold != 1 or (held := self.held_session()) is None:
            return self.session, feed, ("used_statistics",) if self._holds else ()
        del feed["hold"]
        return held, feed, ()

    def _checked(self, frame: Frame, mix: StyleMix) -> _Weights:
        weights: _Weights = self._weights(mix)
        minimum = self.metadata.size.minimum
        if min(frame.height, frame.width) < minimum:
            raise InputError(f"the frame is {frame.width}x{frame.height}; expected sides of {minimum} pixels or more")
        return weights

    @contextlib.contextmanager
    def _reporting(self, frame: Frame) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise VideoNSTError(
                f"{self._device} failed on a frame of {frame.width}x{frame.height} ({one_line(error)}); "
                "try smaller frames, a smaller model or another device"
            ) from error

    def _open_best(self, model: str | Path, threads: int | None) -> None:
        for device in AUTO_ORDER[:-1]:
            try:
                self._open(model, device, threads)
            except (DeviceError, _CpuOnlyError) as error:
                log.debug("%s", error)
            else:
                return
        self._open(model, AUTO_ORDER[-1], threads)

    def _open(self, model: str | Path, device: str, threads: int | None) -> None:
        self.path = path = find_model(model, precision="fp16" if device in HALF_DEVICES else self._cpu_precision)
        self.metadata: ModelMetadata = read_metadata(path)
        if self.metadata.precision == "int8" and device in PROVIDERS and device != "cpu":
            raise _CpuOnlyError(
                f"{path.name} is in 8 bits, which only processors compute: on {device} every convolution would be done "
                "on the CPU; use --device cpu, or the model without .int8"
            )
        self._fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
        self.session = open_session(path, device, threads)
        grey = np.full((trial.SIDE, trial.SIDE, 3), 128, np.uint8)
        photo = np.eye(1, len(self.metadata.styles) + 1, dtype=np.float32)
        try:
            painted = _run(self.session, grey, photo)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise DeviceError(device, one_line(error)) from error
        if trial.levels_off(painted, grey) > trial.TOLERANCE:  # all weight on the photograph gives it back
            raise DeviceError(device, f"it computes wrongly with {path.name}; update its driver")
        self._device = device
        self._holds = "used_statistics" in {output.name for output in self.session.get_outputs()}
        held = held_model(path, self.metadata.held) if self.metadata.held and device in HELD_DEVICES else None
        self._held = HeldSession(held, len(self.metadata.styles) + 1, device, threads, self.session)
        self._try_memory(MEMORY.get(device))
        if device == "cpu" and self.metadata.precision == "fp16":
            log.warning("%s is in half precision, which is slow on the CPU; use the model without .fp16", path)
        log.info("repainting with %s on %s", path.name, device)

    def _try_memory(self, memory: str | None) -> None:
        """Takes `memory`, if what is left there and brought down is what is painted; else none, and a warning."""
        self.memory = memory
        if memory is None:
            return
        ramp = trial.ramp()
        weights = np.eye(1, len(self.metadata.styles) + 1, 1, dtype=np.float32)
        try:
            _, used = self._leave(memory, ramp, weights, None, 0.0)
            painted, _ = self._leave(memory, ramp, weights, used, 0.5)
            down, _ = self._down(ramp, weights, used, 0.5)
            expected = _run(self.session, ramp, weights)
            wrong = max(trial.levels_off(picture, expected) for picture in (painted.numpy()[0], down))
            reason = f"a trial came back {wrong} levels off"
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            wrong, reason = 255, one_line(error)
        if wrong > trial.TOLERANCE:
            log.warning("paintings are not left in the memory of %s: %s", self._device, reason)
            self.memory = None


class _CpuOnlyError(InputError):
    """A model that other devices cannot compute: ONNX Runtime has no other kernel for its convolutions."""


def _run(session: ort.InferenceSession, pixels: Pixels, weights: _Weights) -> Pixels:
    painted: Pixels = session.run(["stylized"], _feed(pixels, weights))[0][0]
    return painted


def _feed(
    pixels: Pixels, weights: _Weights, statistics: Statistics | OnDevice | None = None, hold: float = 0.0
) -> dict[str, Any]:
    """Inputs of the graph."""
    feed: dict[str, Any] = {"frame": np.ascontiguousarray(pixels)[None], "style_weights": weights}
    if statistics is not None:
        feed |= {"statistics": statistics, "hold": np.array([hold], np.float32)}
    return feed
