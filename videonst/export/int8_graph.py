"""The network as a graph of 8-bit convolutions for ONNX Runtime's CPU provider.

Values lie in memory as the frame does, channels last, which is how ONNX Runtime convolves bytes, so nothing is ever
transposed between convolutions. Three things follow from a normalisation standing behind every convolution:

- Its output may be stored in 8 bits with a step and a centre of each channel's own: the normalisation takes both out.
- Mean and variance are taken from the stored bytes, and held in their units.
- The frame's own bytes are the first convolution's input, exact, with 128 as their zero: the constant that this adds is
  taken out as well. Space-to-depth makes it a convolution of stride 1.

The last convolution touches the picture and stays in fp32.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from videonst.export.onnx import OPSET
from videonst.network import StyleNetwork
from videonst.network.model import EPSILON, MULTIPLE, PHOTO

Floats = npt.NDArray[np.float32]

CENTRE = 128
"""Zero of the frame's bytes and of stored outputs."""

_CONTRIB = "com.microsoft"
"""Domain of ONNX Runtime's own operators: its 8-bit convolution with channels last."""

_IR_VERSION = 8
"""Of ONNX files; what opset 18 came with."""

_LARGEST = 127
"""Of a stored weight."""


@dataclass(frozen=True)
class Range:
    """What a convolution reads and makes, as calibration has seen it.

    Attributes:
        input: lowest and highest value.
        output: the same of each channel, (2, channels). Of the first convolution: for a frame whose zero is `CENTRE`.
    """

    input: tuple[float, float]
    output: Floats


def build_int8_graph(network: StyleNetwork, ranges: dict[str, Range]) -> onnx.ModelProto:
    """The graph, with the inputs and outputs of `HoldingNetwork`.

    Args:
        network: left as it is.
        ranges: of every convolution, by its name in the network.
    """
    return _Builder(network, ranges).build()


class _Graph:
    """Nodes and constants; equal constants once."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[tuple[Any, ...], Any] = {}

    def constant(self, value: npt.NDArray[Any] | np.generic, name: str = "") -> str:
        array = np.asarray(value)
        key = (name, array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, name or f"constant_{len(self.constants)}")
        return str(self.constants[key].name)

    def add(self, kind: str, *inputs: Any, output: str = "", domain: str = "", **attributes: Any) -> str:
        """A node with one output, whose name comes back. Inputs are names or constants."""
        return self.split(kind, *inputs, outputs=[output], domain=domain, **attributes)[0]

    def split(self, kind: str, *inputs: Any, outputs: Sequence[str], domain: str = "", **attributes: Any) -> list[str]:
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        made = [name or f"{kind}_{len(self.nodes)}_{i}" for i, name in enumerate(outputs)]
        self.nodes.append(helper.make_node(kind, names, made, name=made[0], domain=domain, **attributes))
        return made


@dataclass(frozen=True)
class _Map:
    """A feature map.

    Attributes:
        name: of a tensor: bytes (1, h, w, channels), or floats (h, w x channels), which are quick to scale by channel.
        width: name of w, (1,).
        channels: how many.
    """

    name: str
    width: str
    channels: int


class _Builder(_Graph):
    def __init__(self, network: StyleNetwork, ranges: dict[str, Range]) -> None:
        super().__init__()
        self._network, self._ranges = network, ranges
        self._used: list[str] = []

    def build(self) -> onnx.ModelProto:
        network, tensors = self._network, helper.make_tensor_value_info
        size, slots, numbers = ["height", "width"], len(network.bank), network.statistics_size
        self._read_style()
        x = self._relu(self._stem())
        for i, conv in enumerate(network.down):
            x = self._relu(self._layer(f"down.{i}", conv, x))
        for i in range(0, len(network.body), 2):
            y = self._layer(f"body.{i}", network.body[i], x)
            y = self._layer(f"body.{i + 1}", network.body[i + 1], y)
            x = replace(x, name=self.add("Add", x.name, y.name))
        for i, conv in enumerate(network.up):
            x = self._layer(f"up.{i}", conv, x, enlarged=True)
        self._fade(self._head(self._relu(x)))
        self.add("Concat", *self._used, output="used_statistics", axis=1)
        defaults = {"statistics": np.zeros((1, numbers), np.float32), "hold": np.zeros(1, np.float32)}
        graph = helper.make_graph(
            self.nodes,
            f"videonst-{network.tier}-int8",
            [
                tensors("frame", TensorProto.UINT8, [1, *size, 3]),
                tensors("style_weights", TensorProto.FLOAT, [1, slots]),
                *(tensors(name, TensorProto.FLOAT, value.shape) for name, value in defaults.items()),
            ],
            [
                tensors("stylized", TensorProto.UINT8, [1, *size, 3]),
                tensors("used_statistics", TensorProto.FLOAT, [1, numbers]),
            ],
            [*self.constants.values(), *(numpy_helper.from_array(value, name) for name, value in defaults.items())],
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def _read_style(self) -> None:
        """γ and β of the mixture, and the statistics that may be held, layer by layer."""
        network = self._network
        bank = self.constant(network.bank.detach().numpy(), "bank")
        rows = self._pairs(self.add("MatMul", "style_weights", bank), network.norm_channels)
        phases = network.shuffle**2
        last = [self.add("Concat", *[row] * phases, axis=1) for row in rows[-1]]
        self._rows = iter([*rows[:-1], last])
        self._held = iter(self._pairs("statistics", [*network.norm_channels[:-1], phases * network.norm_channels[-1]]))

    def _pairs(self, vector: str, channels: list[int]) -> list[list[str]]:
        counts = [count for number in channels for count in (number, number)]
        parts = self.split("Split", vector, _int64(*counts), outputs=[""] * len(counts), axis=1)
        return [parts[i : i + 2] for i in range(0, len(parts), 2)]

    def _stem(self) -> _Map:
        """Frame extended, space-to-depth, first convolution, normalised."""
        stem = self._network.stem
        sides = self.add("Slice", self.add("Shape", "frame"), _int64(1), _int64(3))
        more = self.add("Add", sides, _int64(MULTIPLE - 1))
        whole = self.add("Mul", self.add("Div", more, _int64(MULTIPLE)), _int64(MULTIPLE))
        x = self.add("Pad", "frame", _int64(0, 0, 0, 0, 0, MULTIPLE - 1, MULTIPLE - 1, 0), mode="reflect")
        x = self._bordered(self.add("Slice", x, _int64(0, 0), whole, _int64(1, 2)), stem)
        outputs, _, kernel, _ = stem.weight.shape
        stride = stem.stride[0]
        taps = kernel // stride
        width = self.add("Div", self.add("Gather", whole, _int64(1), axis=0), _int64(stride))
        blocks = self.add("Add", width, _int64(taps - 1))
        x = self.add("Reshape", x, self.add("Concat", _int64(1, -1, stride), blocks, _int64(3 * stride), axis=0))
        x = self.add("Reshape", self.add("Transpose", x, perm=[0, 1, 3, 2, 4]), _int64(0, 0, 0, 3 * stride**2))
        weight = stem.weight.detach().numpy().reshape(outputs, 3, taps, stride, taps, stride)
        weight = weight.transpose(0, 3, 5, 1, 2, 4).reshape(outputs, 3 * stride**2, taps, taps)
        return self._normalised(self._convolved("stem", weight, x, 1 / 255, CENTRE, 1), width, outputs, "stem")

    def _layer(self, name: str, conv: Any, x: _Map, *, enlarged: bool = False) -> _Map:
        """`x` quantised, extended, convolved, normalised; negative values are kept."""
        lowest, highest = self._ranges[name].input
        step = max(highest - lowest, _LEAST_RANGE) / 255
        zero = round(-lowest / step)
        y = self.add("QuantizeLinear", x.name, np.float32(step), np.uint8(zero))
        width, stride = x.width, conv.stride[0]
        if enlarged:  # each row twice, then each column
            y = self.add("Reshape", y, self.add("Concat", _int64(-1), self._row(x), axis=0))
            y = self.add("Concat", y, y, axis=1)
        y = self.add("Reshape", y, self.add("Concat", _int64(1, -1), width, _int64(x.channels), axis=0))
        if enlarged:
            y = self.add("Reshape", self.add("Concat", y, y, axis=3), _int64(0, 0, -1, x.channels))
            width = self.add("Mul", width, _int64(2))
        if stride > 1:
            width = self.add("Div", width, _int64(stride))
        y = self._convolved(name, conv.weight.detach().numpy(), self._bordered(y, conv), step, zero, stride)
        return self._normalised(y, width, conv.out_channels, name)

    def _convolved(self, name: str, weight: Floats, x: str, step: float, zero: int, stride: int) -> str:
        """Every channel in the 8 bits of its own range."""
        lowest, highest = self._ranges[name].output
        steps = self._steps(name)
        scale = np.maximum(np.abs(weight).max((1, 2, 3)) / _LARGEST, _LEAST_RANGE).astype(np.float32)
        rounded = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
        middle = np.rint(-(lowest + highest) / 2 / (np.float32(step) * scale)).astype(np.int32)
        return self.add(
            "QLinearConv",
            x, np.float32(step), np.uint8(zero),
            self.constant(rounded, f"{name}.weight"), scale / steps, np.zeros(len(scale), np.int8),
            np.float32(1), np.uint8(CENTRE), middle,
            domain=_CONTRIB, channels_last=1, kernel_shape=weight.shape[2:], strides=[stride] * 2, pads=[0] * 4,
        )  # fmt: skip

    def _steps(self, name: str) -> Floats:
        """How much one step of a convolution's stored output is worth, by channel."""
        lowest, highest = self._ranges[name].output
        steps: Floats = (np.maximum(highest - lowest, _LEAST_RANGE) / 255).astype(np.float32)
        return steps

    def _normalised(self, stored: str, width: str, channels: int, name: str) -> _Map:
        """Bytes as `_convolved` gives them, normalised, as floats."""
        x = _Map("", width, channels)
        values = self.add("Cast", stored, to=TensorProto.FLOAT)
        values = self.add("Reshape", values, self.add("Concat", _int64(-1), self._row(x), axis=0))
        means = []
        for of in (values, self.add("Mul", values, values)):
            rows = self.add("Reshape", self.add("ReduceMean", of, _int64(0), keepdims=0), _int64(-1, channels))
            means.append(self.add("ReduceMean", rows, _int64(0), keepdims=1))
        epsilon = (EPSILON / self._steps(name) ** 2).astype(np.float32)
        scale, shift = self._scale_and_shift(means, epsilon)
        shape = self.add("Concat", width, _int64(channels), axis=0)
        scale, shift = (self.add("Reshape", self.add("Expand", v, shape), _int64(-1)) for v in (scale, shift))
        return replace(x, name=self.add("Add", self.add("Mul", values, scale), shift))

    def _scale_and_shift(self, means: Sequence[str], epsilon: Floats | np.float32) -> tuple[str, str]:
        """As `HeldStatistics` has it, for mean and mean square, each (1, channels)."""
        mean, square = means
        variance = self.add("Max", self.add("Sub", square, self.add("Mul", mean, mean)), np.float32(0))
        used = []
        for own, held in zip((mean, variance), next(self._held), strict=True):
            used.append(self.add("Add", own, self.add("Mul", "hold", self.add("Sub", held, own))))
        self._used += used
        gamma, beta = next(self._rows)
        scale = self.add("Div", gamma, self.add("Sqrt", self.add("Add", used[1], epsilon)))
        return scale, self.add("Sub", beta, self.add("Mul", used[0], scale))

    def _head(self, x: _Map) -> str:
        """The last convolution in fp32, its normalisation, and depth-to-space in bytes: (1, H, W, 3)."""
        network, shuffle = self._network, self._network.shuffle
        phases = shuffle**2
        y = self.add("Reshape", x.name, self.add("Concat", _int64(1, -1), x.width, _int64(x.channels), axis=0))
        border, after = network.head.border[:2]
        y = self.add("Transpose", y, perm=[0, 3, 1, 2])
        y = self.add("Pad", y, _int64(0, 0, border, border, 0, 0, after, after), mode="reflect")
        # Colours beside each other, as the frame has them, instead of phases.
        order = [colour * phases + phase for phase in range(phases) for colour in range(3)]
        weight = network.head.weight.detach().numpy()[order]
        y = self.add("Conv", y, self.constant(weight, "head.weight"), kernel_shape=weight.shape[2:])
        means = [
            self.add("Reshape", self.add("ReduceMean", of, _int64(2, 3)), _int64(1, -1))
            for of in (y, self.add("Mul", y, y))
        ]
        scale, shift = self._scale_and_shift(means, np.float32(EPSILON))
        scale, shift = (self.add("Reshape", v, _int64(1, -1, 1, 1)) for v in (scale, shift))
        y = self.add("Sigmoid", self.add("Add", self.add("Mul", y, scale), shift))
        y = self.add(
            "Cast", self.add("Add", self.add("Mul", y, np.float32(255)), np.float32(0.5)), to=TensorProto.UINT8
        )
        lines = self.split("Split", y, _int64(*[3 * shuffle] * shuffle), outputs=[""] * shuffle, axis=1)
        lines = [self.add("Unsqueeze", self.add("Transpose", v, perm=[0, 2, 3, 1]), _int64(2)) for v in lines]
        y = self.add("Concat", *lines, axis=2)
        width = self.add("Mul", x.width, _int64(shuffle))
        y = self.add("Reshape", y, self.add("Concat", _int64(1, -1), width, _int64(3), axis=0))
        sides = self.add("Slice", self.add("Shape", "frame"), _int64(1), _int64(3))
        return self.add("Slice", y, _int64(0, 0), sides, _int64(1, 2))

    def _fade(self, painted: str) -> None:
        """Fades to the photograph with the square of its weight, and does nothing where that is 0."""
        weight = self.add("Max", self.add("Gather", "style_weights", _int64(PHOTO), axis=1), np.float32(0))
        keep = self.add("Reshape", self.add("Mul", weight, weight), _int64(1))
        fading = self.add("Reshape", self.add("Greater", keep, np.float32(0)), np.array([], np.int64))
        mixed, plain = _Graph(), _Graph()
        frame, values = (mixed.add("Cast", name, to=TensorProto.FLOAT) for name in ("frame", painted))
        values = mixed.add("Add", values, mixed.add("Mul", mixed.add("Sub", frame, values), keep))
        mixed.add("Cast", mixed.add("Add", values, np.float32(0.5)), to=TensorProto.UINT8, output="mixed")
        plain.add("Identity", painted, output="plain")
        self.add(
            "If",
            fading,
            output="stylized",
            then_branch=_branch("mixed", mixed),
            else_branch=_branch("plain", plain),
        )

    def _relu(self, x: _Map) -> _Map:
        return replace(x, name=self.add("Relu", x.name))

    def _row(self, x: _Map) -> str:
        """Values in a row of the map, (1,)."""
        return self.add("Mul", x.width, _int64(x.channels))

    def _bordered(self, x: str, conv: Any) -> str:
        before, after = conv.border[:2]
        return self.add("Pad", x, _int64(0, before, before, 0, 0, after, after, 0), mode="reflect")


def _branch(output: str, graph: _Graph) -> Any:
    made = helper.make_tensor_value_info(output, TensorProto.UINT8, [1, "height", "width", 3])
    return helper.make_graph(graph.nodes, output, [], [made], list(graph.constants.values()))


def _int64(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


_LEAST_RANGE = 1e-6
"""Of a channel that never changes, so that nothing is divided by 0."""
