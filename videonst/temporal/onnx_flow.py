"""Optical flow by a network on ONNX Runtime: RAFT, GMFlow, NeuFlow or whatever else was exported."""

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from videonst.engines.providers import DeviceError, one_line, open_session
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Pixels
from videonst.temporal.flow import Field, grey_at

DEFAULT_SIDE = 360
"""Short side of the working resolution, pixels, of networks that take any size."""

MULTIPLE = 32
"""Sides are brought to a multiple of this: RAFT works at an eighth of the resolution, NeuFlow at a sixteenth, GMFlow in
windows at a thirty-second."""

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
"""Of pictures that a network may take."""


class OnnxFlow:
    """A `FlowProvider` around a model file.

    The model takes two pictures, (1, 3, H, W), RGB in 0 to 255 as float, half float or uint8, and its last output of
    the shape (1, 2, H, W) is the displacement from the first to the second, pixels, x then y: what RAFT's exports do
    (Teed and Deng 2020). Where the file fixes H and W, frames are brought to them. Pictures are grey on all three
    channels, as the trust in the flow is judged on grey ones.

    Args:
        path: of the .onnx file.
        device: as for engines, but "auto", which is the CPU.
        side: short side of the working resolution, pixels, where the file leaves the size open.

    Raises:
        InputError: no such file, or a model of another form.
    """

    def __init__(self, path: str | Path, device: str = "cpu", side: int = DEFAULT_SIDE) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"there is no flow network {self.path}; expected an .onnx file")
        self.name = f"{self.path.name} {hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]}"
        device = "cpu" if device == "auto" else device
        try:
            self._session = open_session(self.path, device)
        except DeviceError as error:
            raise InputError(f"{self.path} cannot be loaded as a flow network on {device}: {error.reason}") from error
        self._inputs = [i for i in self._session.get_inputs() if len(i.shape) == 4]
        channels = self._inputs[0].shape[1] if self._inputs else None
        if (
            len(self._inputs) != 2
            or len(self._session.get_inputs()) != 2
            or (isinstance(channels, int) and channels != 3)
            or any(i.type not in TYPES for i in self._inputs)
        ):
            found = ", ".join(f"{i.name} {i.type} {i.shape}" for i in self._session.get_inputs())
            raise InputError(
                f"{self.path} is no flow network that can be used: it takes {found}; expected two pictures (1, 3, H, W)"
            )
        self._type = TYPES[self._inputs[0].type]
        height, width = self._inputs[0].shape[2:]
        self._fixed = (width, height) if isinstance(height, int) and isinstance(width, int) else None
        self._side = side

    def prepare(self, pixels: Pixels) -> Pixels:
        if self._fixed is None:
            return grey_at(pixels, self._side, MULTIPLE)
        grey: Pixels = cv2.resize(  # type: ignore[assignment]
            cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), self._fixed, interpolation=cv2.INTER_AREA
        )
        return grey

    def flow(self, first: Pixels, second: Pixels) -> Field:
        pictures = (np.repeat(grey[None, None], 3, axis=1).astype(self._type) for grey in (first, second))
        try:
            outputs: list[npt.NDArray[Any]] = self._session.run(
                None, {i.name: picture for i, picture in zip(self._inputs, pictures, strict=True)}
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise VideoNSTError(f"the flow network {self.path} failed: {one_line(error)}") from error
        shape = (1, 2, *first.shape)
        found = [output for output in outputs if output.shape == shape]
        if not found:
            raise VideoNSTError(
                f"the flow network {self.path} gives {', '.join(str(o.shape) for o in outputs)}; expected {shape}"
            )
        motion = np.ascontiguousarray(found[-1][0].transpose(1, 2, 0), np.float32)
        return np.nan_to_num(motion, copy=False, nan=0, posinf=0, neginf=0)  # else a history would keep it for ever
