"""How one frame is repainted. Every engine follows the same small protocol; importing this package is cheap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from videonst.engines.metadata import SizeRules, StyleInfo
from videonst.frame import Frame, Pixels
from videonst.styles import StyleMix

__all__ = [
    "ClipEngine",
    "Engine",
    "EngineDescription",
    "FrameStore",
    "HoldsStatistics",
    "KeepsOnDevice",
    "LooksAhead",
    "OnDevice",
    "PaintsSideBySide",
    "Stateful",
    "Statistics",
    "Stores",
    "as_array",
]

Statistics = npt.NDArray[np.float32]
"""Mean and variance of every channel that a network normalises, (1, n); n depends on the network."""


@dataclass(frozen=True, kw_only=True)
class EngineDescription:
    """What an engine is and what it takes.

    Attributes:
        name: tier of the network, or name of the method.
        styles: in slot order; their names are what a `StyleMix` may hold.
        size: which frames it takes.
        device: where it really runs, such as "cpu" or "cuda".
        precision: arithmetic of the convolutions, "fp32", "fp16" or "int8".
        fingerprint: SHA-256 of the model file, empty where there is none.
        settings: what else decides its pictures, by name, in values that JSON holds.
    """

    name: str
    styles: tuple[StyleInfo, ...]
    size: SizeRules
    device: str
    precision: str
    fingerprint: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Repaints single frames. Holds no memory of the frames before."""

    @property
    def description(self) -> EngineDescription: ...

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        """The same moment repainted, with the same size.

        Raises:
            InputError: a style that the engine does not know, or a frame that it cannot take.
            VideoNSTError: the device failed, such as for want of memory.
        """
        ...


@runtime_checkable
class HoldsStatistics(Engine, Protocol):
    """An engine whose normalisation can hold statistics of earlier frames, so that the picture does not pulse."""

    def stylize_holding(
        self, frame: Frame, mix: StyleMix, statistics: Statistics | None, hold: float
    ) -> tuple[Frame, Statistics | None]:
        """As `stylize`, normalised with `own + hold * (statistics - own)`.

        Args:
            frame, mix: as for `stylize`.
            statistics: as returned for an earlier frame; None takes the frame's own.
            hold: 0 (the frame's own statistics, as `stylize` does) to 1.

        Returns:
            The painted frame, and the statistics it was normalised with; None where the model cannot hold any.
        """
        ...


class OnDevice(Protocol):
    """An array in the memory of a device, ONNX Runtime's `OrtValue`: pictures are (1, H, W, 3)."""

    def numpy(self) -> npt.NDArray[Any]:
        """Brought down."""
        ...

    def shape(self) -> Sequence[int]: ...


def as_array(statistics: Statistics | OnDevice | None) -> Statistics | None:
    """Brought down where they lie on a device."""
    return statistics if statistics is None or isinstance(statistics, np.ndarray) else statistics.numpy()


@runtime_checkable
class KeepsOnDevice(Engine, Protocol):
    """An engine that can leave what it paints in the memory of its device, for what is to be done with it there.

    Attributes:
        memory: ONNX Runtime's name of that memory, such as "cuda"; None where nothing is to be left there.
    """

    memory: str | None

    def stylize_on_device(
        self, frame: Frame, mix: StyleMix, statistics: Statistics | OnDevice | None, hold: float
    ) -> tuple[OnDevice, Statistics | OnDevice | None]:
        """As `HoldsStatistics.stylize_holding`, but `keep_colour` is not done: the painting, uint8 (1, H, W, 3)."""
        ...


@runtime_checkable
class PaintsSideBySide(Engine, Protocol):
    """An engine that may be done sooner with several frames at once, from a thread each, than one after the other."""

    def side_by_side(self, width: int, height: int) -> tuple[Engine, int]:
        """An engine that paints the same, and of how many frames of this size at once it should be asked: itself and 1
        where that is best."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An engine with a memory of the frames before, which a resumed conversion gives back to it."""

    def state(self) -> Mapping[str, Any]:
        """The memory: numpy arrays and values that JSON holds. What is handed out must not change afterwards."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a memory as `state` gave it."""


@runtime_checkable
class ClipEngine(Engine, Protocol):
    """An engine that keeps the frames of a clip steady by itself, so that no stabiliser is put around it."""

    def check(self, width: int, height: int) -> None:
        """
        Raises:
            InputError: frames of this size cannot be painted.
        """

    def clip(self, flow: Any) -> Engine:
        """An engine for the frames of one clip, in order; `flow` (a `FlowProvider`) finds the motion."""
        ...


@runtime_checkable
class LooksAhead(Engine, Protocol):
    """An engine that may need later frames before it gives one."""

    def take(self, frame: Frame, mix: StyleMix) -> list[Frame]:
        """Takes the next frame, and gives those that are finished, in order."""
        ...

    def finish(self) -> list[Frame]:
        """The frames that were taken and not given yet."""
        ...


class FrameStore(Protocol):
    """Keeps what took long to paint, so that an interrupted conversion need not paint it again."""

    def get(self, frame: Frame, part: str) -> Pixels | None:
        """What was put for this moment, RGB uint8 (H, W, 3); None where nothing was."""
        ...

    def put(self, frame: Frame, part: str, pixels: Pixels) -> None:
        """Keeps `pixels` for the moment of `frame`; `part` tells apart what is kept for the same one."""
        ...


@runtime_checkable
class Stores(Protocol):
    """An engine so slow that every frame is worth keeping. `store` is set before its first frame."""

    store: FrameStore | None
