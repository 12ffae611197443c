"""Optical flow between frames, warping along it, and how far it can be trusted."""

import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
import numpy.typing as npt

from videonst.errors import InputError
from videonst.frame import Pixels

Field = npt.NDArray[Any]
"""Displacements, float32 (height, width, 2): x, then y, in pixels of this very resolution."""

Plane = npt.NDArray[Any]
"""One value a pixel, float32 (height, width)."""


class FlowProvider(Protocol):
    """Finds the motion between two frames. `flow` is called from a thread of the stabiliser's own, never from two at
    once; `prepare` may be called meanwhile.

    Attributes:
        name: what decides its results, such as the file of a network: a conversion is resumed with the same only.
    """

    @property
    def name(self) -> str: ...

    def prepare(self, pixels: Pixels) -> Pixels:
        """A frame as `flow` wants it: grey uint8 (h, w) at the working resolution. Done once a frame, then kept."""
        ...

    def flow(self, first: Pixels, second: Pixels) -> Field:
        """The displacement of every pixel of `first` to where it is in `second`; both as `prepare` returns them."""
        ...


@runtime_checkable
class RoughFlow(FlowProvider, Protocol):
    """A provider with a cheaper search for the way there, which only the way back is compared with."""

    def rough(self, first: Pixels, second: Pixels) -> Field:
        """As `flow`, less exact."""
        ...


@runtime_checkable
class SeeksSideBySide(FlowProvider, Protocol):
    """A provider that can be had several times, to be asked from a thread each."""

    def twin(self) -> FlowProvider:
        """Another that finds the same."""
        ...


def flow_there(provider: FlowProvider, first: Pixels, second: Pixels) -> Field:
    """The motion from `first` to `second` that the way back from `second` is to be checked by."""
    return provider.rough(first, second) if isinstance(provider, RoughFlow) else provider.flow(first, second)


class DisFlow:
    """Dense inverse search (Kroeger et al. 2016) of OpenCV, on grey pictures of reduced size.

    Args:
        preset: a name in `PRESETS`.
        side: short side of the working resolution, pixels; None takes what suits the preset. Never enlarges.

    Raises:
        InputError: no such preset.
    """

    def __init__(self, preset: str = "fast", side: int | None = None) -> None:
        if preset not in PRESETS:
            raise InputError(
                f"unknown flow {preset!r}; expected {', '.join(PRESETS)} or the path of a flow network (.onnx)"
            )
        exact, rough, suited = PRESETS[preset]
        self.preset, self.side = preset, side or suited
        self.name = f"dis {exact} {rough} {self.side}"
        self._search, self._rough = exact.open(), rough.open()

    def twin(self) -> "DisFlow":
        return DisFlow(self.preset, self.side)

    def prepare(self, pixels: Pixels) -> Pixels:
        return grey_at(pixels, self.side)

    def flow(self, first: Pixels, second: Pixels) -> Field:
        return self._found(self._search, first, second)

    def rough(self, first: Pixels, second: Pixels) -> Field:
        return self._found(self._rough, first, second)

    def _found(self, search: cv2.DISOpticalFlow, first: Pixels, second: Pixels) -> Field:
        height, width = first.shape
        below, right = max(SMALLEST_SIDE - height, 0), max(SMALLEST_SIDE - width, 0)
        if below or right:
            first, second = (np.pad(picture, ((0, below), (0, right)), "edge") for picture in (first, second))
        found: Field = search.calc(first, second, None)  # type: ignore[call-overload]
        return found[:height, :width]


def open_flow(flow: "str | FlowProvider") -> "FlowProvider":
    """A provider from what a user says: a preset of `DisFlow`, or the path of a network (.onnx) for `OnnxFlow`.

    Raises:
        InputError: no such preset, or a file that cannot be used.
    """
    if not isinstance(flow, str):
        return flow
    if flow.endswith(".onnx"):
        from videonst.temporal.onnx_flow import OnnxFlow

        return OnnxFlow(flow)
    return DisFlow(flow)


class Search(NamedTuple):
    """Settings of OpenCV's dense inverse search: a preset of its own, and what is set otherwise.

    Attributes:
        preset: number of OpenCV's preset.
        stride: between patches of 8x8, pixels; None as in the preset.
        descents: steps of gradient descent for each patch; None as in the preset.
        finest: halvings of the picture at which the search ends and the flow is enlarged; None as in the preset.
    """

    preset: int
    stride: int | None = None
    descents: int | None = None
    finest: int | None = None

    def open(self) -> cv2.DISOpticalFlow:
        search = cv2.DISOpticalFlow.create(self.preset)
        if self.stride is not None:
            search.setPatchStride(self.stride)
        if self.descents is not None:
            search.setGradientDescentIterations(self.descents)
        if self.finest is not None:
            search.setFinestScale(self.finest)
        return search

    def __str__(self) -> str:
        return ",".join("" if value is None else str(value) for value in self)


def _small(preset: int) -> tuple[Search, Search, int]:
    """OpenCV's quick presets as used here. They end two halvings early, with 45 rows of a picture of 180. These search
    a picture of 90 rows to the end, and one halving early on the way there: more exact for a little more time, and less
    for what is done at the working resolution (docs/benchmarks/stability.md)."""
    return Search(preset, stride=5, descents=12, finest=0), Search(preset, finest=1), 90


_FAST = Search(cv2.DISOPTICAL_FLOW_PRESET_FAST)
_MEDIUM = Search(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM, stride=5, descents=12)
"""OpenCV has stride 3 and 25 steps: as exact on Sintel (either way 21.1 % of the pixels are wrong by more than 2), and
1.7 times as slow."""

PRESETS = {
    "ultrafast": _small(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
    "fast": _small(cv2.DISOPTICAL_FLOW_PRESET_FAST),
    "medium": (_MEDIUM, _FAST, 240),
}
"""The search, the rough one, and the short side of the working resolution, pixels."""

SMALLEST_SIDE = 32
"""OpenCV's search crashes on pictures with a side of 12 pixels; these are four of its patches."""


def grey_at(pixels: Pixels, side: int, multiple: int = 1) -> Pixels:
    """A frame (H, W, 3) in grey, uint8 (h, w): a short side of `side` at most, both multiples of `multiple`."""
    grey: npt.NDArray[Any] = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    factor = min(side / min(grey.shape), 1.0)
    height, width = (max(round(length * factor / multiple), 1) * multiple for length in grey.shape)
    while min(grey.shape) > HALVED_FROM * side:
        grey = cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if (height, width) != grey.shape:
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    return grey


HALVED_FROM = 4
"""Pictures more than this many times as large as wanted are halved first: OpenCV halves quickly, and takes 18 ms from
3840x2160 to 240 rows at once, 5 so."""

CONSISTENCY = 4.0
"""Squared distance, in squared pixels of the full frame, by which there and back may miss the start, plus
`CONSISTENCY_SHARE` of the squared lengths of both ways. Sundaram et al. 2010 and Ruder et al. 2016 take 0.5 and 0.01,
where a wrong pixel costs more than a missed one; here the history is clamped as well (docs/steady.md)."""
CONSISTENCY_SHARE = 0.05

BOUNDARY_SHARE = 0.01
BOUNDARY = 0.02
"""Motion boundary: the squared gradient of the flow exceeds `BOUNDARY_SHARE` of its squared length plus this. The
forms are Ruder's; his constant, 0.002, takes much of what moves steadily."""

BRIGHTNESS = 14.0
"""Difference in brightness along the flow, levels, beyond the change of exposure, at which trust falls to 1/e."""


def trust(first: Pixels, second: Pixels, forward: Field, backward: Field, scale: float) -> tuple[Plane, float]:
    """How far the motion from `second` back to `first` can be believed.

    Forward-backward consistency (Sundaram et al. 2010), motion boundaries (Ruder et al. 2016), leaving the frame, and
    the brightness along the flow up to a change of exposure, all at the working resolution.

    Args:
        first, second: grey uint8 (h, w), as prepared.
        forward, backward: flow from `first` to `second`, and from `second` to `first`.
        scale: pixels of the full frame per pixel of the working resolution.

    Returns:
        Trust (h, w) in [0, 1], and the change of exposure, levels.
    """
    height, width = second.shape
    there = place_of(backward)
    back = resample(forward, there)
    length, back_length, miss = _squared(backward), _squared(back), _squared(cv2.add(back, backward))
    allowed = CONSISTENCY_SHARE * (length + back_length) + CONSISTENCY / scale**2
    result: Plane = np.clip(2 - miss / allowed, 0, 1)
    slope = _squared(cv2.Sobel(backward, cv2.CV_32F, 1, 0, scale=1 / 8))
    slope += _squared(cv2.Sobel(backward, cv2.CV_32F, 0, 1, scale=1 / 8))
    result[slope > BOUNDARY_SHARE * length + BOUNDARY] = 0
    result = cv2.erode(result, _AROUND)

    before = resample(first, there)
    exposure = exposure_change(before, second)
    unlike = cv2.blur(np.abs(cv2.subtract(second, before, dtype=cv2.CV_32F) - np.float32(exposure)), (3, 3))
    result *= cv2.exp(-((unlike / BRIGHTNESS) ** 2))
    inside = cv2.inRange(there, (-_HALF, -_HALF), (width - _HALF, height - _HALF))
    return cv2.blur(cv2.copyTo(result, inside), (3, 3)), exposure


def exposure_change(first: Pixels, second: Pixels) -> float:
    """Interquartile mean of the difference in brightness between two grey pictures, levels: what moves or enters
    hardly counts, and noise averages out."""
    change = np.sort((second[::_SPARSE, ::_SPARSE].astype(np.int16) - first[::_SPARSE, ::_SPARSE]).ravel())
    quarter = len(change) // 4
    return float(change[quarter : len(change) - quarter].mean())


_HALF = 0.5
_AROUND = np.ones((3, 3), np.uint8)
_SPARSE = 4
"""Of the pixels, every so many in a row and column are enough for a mean."""


def resample(picture: npt.NDArray[Any], place: Field, interpolation: int = cv2.INTER_LINEAR) -> npt.NDArray[Any]:
    """The values of `picture` at `place` (x and y of every pixel of the result); the border is continued."""
    return cv2.remap(  # type: ignore[call-overload,no-any-return]
        picture, place, None, interpolation, borderMode=cv2.BORDER_REPLICATE
    )


def place_of(flow: Field) -> Field:
    """Where every pixel goes: x + flow(x), as `cv2.remap` wants it."""
    return cv2.add(flow, _grid(*flow.shape[:2]))


def in_full_pixels(flow: Field, width: int, height: int) -> Field:
    """Displacements at the working resolution, (h, w, 2), in pixels of the full frame. Proportions may differ: sides
    are rounded, and some networks have a size of their own."""
    factors = width / flow.shape[1], height / flow.shape[0], 0.0, 0.0  # a scalar of OpenCV has four
    return cv2.multiply(flow, factors)  # type: ignore[call-overload,no-any-return]


def _squared(field: npt.NDArray[Any]) -> Plane:
    x, y = cv2.split(field)
    return cv2.add(cv2.multiply(x, x), cv2.multiply(y, y))


@functools.lru_cache(maxsize=4)
def _grid(height: int, width: int) -> Field:
    """The place of every pixel, x and y."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack((x, y))
