"""The fast engine: an exported network on ONNX Runtime."""

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from videonst.engines import EngineDescription, Statistics
from videonst.engines.colour import keep_colour
from videonst.engines.metadata import ModelMetadata, read_metadata
from videonst.engines.providers import AUTO_ORDER, HALF_DEVICES, DeviceError, one_line, open_session
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame, Pixels
from videonst.models import find_model
from videonst.styles import StyleMix

log = logging.getLogger(__name__)

TRIAL_SIZE = 32
"""Side of the grey frame, pixels, that a device must give back before it counts as working."""

TRIAL_TOLERANCE = 2
"""Levels by which that frame may come back changed with all weight on the photo slot."""

REMEMBERED_MIXES = 64


class OnnxEngine:
    """Repaints frames with a model file. May be used from several threads.

    Args:
        model: name of a shipped model, such as "fast", or path of an .onnx file. A name picks the precision that
            suits the device.
        device: "auto" (the best that works), "cuda", "tensorrt", "coreml" or "cpu".
        threads: of the CPU; None takes the physical cores.
        cpu_precision: of a shipped model on the CPU: "fp32" as trained, or "int8", which is more than twice as
            fast where the processor has 8-bit dot products and paints 1 to 3 levels differently.

    Attributes:
        metadata: what the model file says about itself.
        path: of the model file that was taken.
        session: ONNX Runtime's, for measurements.

    Raises:
        InputError: no such model or device; a device that does not work here; a file that is no videonst model.
    """

    def __init__(
        self, model: str | Path, device: str = "auto", threads: int | None = None, *, cpu_precision: str = "fp32"
    ) -> None:
        self._cpu_precision = cpu_precision
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

        def run(weights: npt.NDArray[np.float32]) -> Pixels:
            nonlocal used
            feed = {"frame": np.ascontiguousarray(frame.pixels)[None], "style_weights": weights}
            if statistics is not None:
                feed |= {"statistics": statistics, "hold": np.array([hold], np.float32)}
            painted, used = self.session.run(["stylized", "used_statistics"], feed)
            pixels: Pixels = painted[0]
            return pixels

        return self._paint(frame, mix, run), used

    def _paint(self, frame: Frame, mix: StyleMix, run: Callable[[npt.NDArray[np.float32]], Pixels]) -> Frame:
        weights: npt.NDArray[np.float32] = self._weights(mix)
        minimum = self.metadata.size.minimum
        if min(frame.height, frame.width) < minimum:
            raise InputError(f"the frame is {frame.width}x{frame.height}; expected sides of {minimum} pixels or more")
        if mix.strength == 0:
            return frame
        try:
            painted = run(weights)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise VideoNSTError(
                f"{self._device} failed on a frame of {frame.width}x{frame.height} ({one_line(error)}); "
                "try smaller frames, a smaller model or another device"
            ) from error
        return frame.with_pixels(keep_colour(painted, frame.pixels) if mix.keep_colour else painted)

    def _open_best(self, model: str | Path, threads: int | None) -> None:
        for device in AUTO_ORDER[:-1]:
            try:
                self._open(model, device, threads)
            except DeviceError as error:
                log.debug("%s", error)
            else:
                return
        self._open(model, AUTO_ORDER[-1], threads)

    def _open(self, model: str | Path, device: str, threads: int | None) -> None:
        self.path = path = find_model(model, precision="fp16" if device in HALF_DEVICES else self._cpu_precision)
        self.metadata: ModelMetadata = read_metadata(path)
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
        if device == "cpu" and self.metadata.precision == "fp16":
            log.warning("%s is in half precision, which is slow on the CPU; use the model without .fp16", path)
        log.info("repainting with %s on %s", path.name, device)


def _run(session: ort.InferenceSession, pixels: Pixels, weights: npt.NDArray[np.float32]) -> Pixels:
    feed = {"frame": np.ascontiguousarray(pixels)[None], "style_weights": weights}
    painted: Pixels = session.run(["stylized"], feed)[0][0]
    return painted
