"""The fast engine: an exported network on ONNX Runtime."""

import contextlib
import copy
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from videonst.engines import EngineDescription, OnDevice, Statistics
from videonst.engines.colour import keep_colour
from videonst.engines.metadata import ModelMetadata, read_metadata
from videonst.engines.providers import (
    AUTO_ORDER,
    HALF_DEVICES,
    MEMORY,
    PROVIDERS,
    DeviceError,
    one_line,
    open_session,
    run_bound,
)
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame, Pixels
from videonst.models import find_model
from videonst.processor import usable_cores
from videonst.styles import StyleMix

log = logging.getLogger(__name__)

TRIAL_SIZE = 32
"""Side of the grey frame, pixels, that a device must give back before it counts as working."""

TRIAL_TOLERANCE = 2
"""Levels by which that frame may come back changed with all weight on the photo slot, or another through the device's
memory."""

REMEMBERED_MIXES = 64

PIXELS_AT_ONCE = 1280 * 720
"""Of all frames that a processor paints side by side: memory grows with them, and so does the time until Ctrl-C is
heeded. Larger frames are shared out among the cores one by one, which is as quick with them."""

DEVICE_FRAMES_AT_ONCE, DEVICE_PIXELS_AT_ONCE = 2, 2 * 1920 * 1088
"""The same on a GPU, whose memory is taken for each of them."""

_Weights = npt.NDArray[np.float32]


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
        return self._paint(frame, mix, lambda weights: _run(self.session, frame.pixels, weights))

    def stylize_holding(
        self, frame: Frame, mix: StyleMix, statistics: Statistics | None, hold: float
    ) -> tuple[Frame, Statistics | None]:
        """See `HoldsStatistics`. Model files of before that normalise as `stylize` does, and give None."""
        if not self._holds:
            return self.stylize(frame, mix), None
        used = statistics

        def run(weights: _Weights) -> Pixels:
            nonlocal used
            feed = _feed(frame.pixels, weights, statistics, hold)
            painted, used = self.session.run(["stylized", "used_statistics"], feed)
            pixels: Pixels = painted[0]
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
            self._twins[threads] = twin
        return self._twins[threads], painters

    def stylize_on_device(
        self, frame: Frame, mix: StyleMix, statistics: Statistics | OnDevice | None, hold: float
    ) -> tuple[OnDevice, OnDevice | None]:
        """See `KeepsOnDevice`."""
        weights = self._checked(frame, mix)
        with self._reporting(frame):
            return self._leave(self.memory or "cpu", frame.pixels, weights, statistics, hold)

    def _paint(self, frame: Frame, mix: StyleMix, run: Callable[[_Weights], Pixels]) -> Frame:
        weights = self._checked(frame, mix)
        if mix.strength == 0:
            return frame
        with self._reporting(frame):
            painted = run(weights)
        return frame.with_pixels(keep_colour(painted, frame.pixels) if mix.keep_colour else painted)

    def _leave(
        self, memory: str, pixels: Pixels, weights: _Weights, statistics: Statistics | OnDevice | None, hold: float
    ) -> tuple[OnDevice, OnDevice | None]:
        """Paints, and leaves painting and statistics in `memory`."""
        outputs = ("stylized", "used_statistics") if self._holds else ("stylized",)
        feed = _feed(pixels, weights, statistics, hold)
        painted, *used = run_bound(self.session, feed, outputs, memory)
        return painted, used[0] if used else None

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
        trial = np.full((TRIAL_SIZE, TRIAL_SIZE, 3), 128, np.uint8)
        photo = np.eye(1, len(self.metadata.styles) + 1, dtype=np.float32)
        try:
            painted = _run(self.session, trial, photo)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise DeviceError(device, one_line(error)) from error
        if np.abs(painted.astype(int) - trial).max() > TRIAL_TOLERANCE:
            raise DeviceError(device, f"it computes wrongly with {path.name}; update its driver")
        self._device = device
        self._holds = "used_statistics" in {output.name for output in self.session.get_outputs()}
        self.memory = self._tried_memory(MEMORY.get(device))
        if device == "cpu" and self.metadata.precision == "fp16":
            log.warning("%s is in half precision, which is slow on the CPU; use the model without .fp16", path)
        log.info("repainting with %s on %s", path.name, device)

    def _tried_memory(self, memory: str | None) -> str | None:
        """`memory`, if what is left there is what comes down; else None, and a warning."""
        if memory is None:
            return None
        ramp = np.broadcast_to(np.linspace(0, 255, TRIAL_SIZE).astype(np.uint8)[:, None], (TRIAL_SIZE, TRIAL_SIZE, 3))
        weights = np.eye(1, len(self.metadata.styles) + 1, 1, dtype=np.float32)
        try:
            _, used = self._leave(memory, ramp, weights, None, 0.0)
            painted, _ = self._leave(memory, ramp, weights, used, 1.0)
            wrong = int(np.abs(painted.numpy()[0].astype(int) - _run(self.session, ramp, weights)).max())
            reason = f"a trial came back {wrong} levels off"
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            wrong, reason = 255, one_line(error)
        if wrong <= TRIAL_TOLERANCE:
            return memory
        log.warning("paintings are not left in the memory of %s: %s", self._device, reason)
        return None


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
