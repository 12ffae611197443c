"""The network as a graph of 8-bit convolutions for ONNX Runtime's CPU provider.

Values lie in memory as the frame does, channels last, which is how ONNX Runtime convolves bytes, so nothing is ever
transposed between convolutions. Four things follow from a normalisation standing behind every convolution:

- Its output may be stored in 8 bits with a step and a centre of each channel's own: the normalisation takes both out.
- Mean and variance are taken from the stored bytes, and held in their units. Where they are held entirely (`hold` 1)
  nobody needs the frame's own: the graph has a branch that does not compute them, with the same weights.
- What is left is a product and a sum by channel. ONNX Runtime has a single pass for these, from bytes to floats: the
  product with an identity matrix, whose result is scaled and shifted by column. Scale and shift could also be those of
  the convolution itself, but with a bias that is no constant it takes half as long again (ONNX Runtime 1.31), and
  releases before that leave such a bias out.
- The frame's own bytes are the first convolution's input, exact, with 128 as their zero: the constant that this adds is
  taken out as well. Space-to-depth makes it a convolution of stride 1.

The last convolution touches the picture and stays in fp32.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from videonst.export.onnx import OPSET
from videonst.network import StyleNetwork
from videonst.network.model import EPSILON, MULTIPLE, PHOTO, PaddedConv

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
    return _Model(network).build(ranges)


class _Graph:
    """Nodes and constants; equal constants once. A branch within another graph shares its constants."""

    def __init__(self, outer: "_Graph | None" = None) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[tuple[Any, ...], Any] = outer.constants if outer else {}
        self._numbers: Iterator[int] = outer._numbers if outer else itertools.count()

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
        number = next(self._numbers)
        made = [name or f"{kind}_{number}_{i}" for i, name in enumerate(outputs)]
        self.nodes.append(helper.make_node(kind, names, made, name=made[0], domain=domain, **attributes))
        return made


@dataclass(frozen=True)
class _Map:
    """A feature map.

    Attributes:
        name: of a tensor: bytes (1, h, w, channels), or floats (h x w, channels).
        width: name of w, (1,).
        channels: how many.
    """

    name: str
    width: str
    channels: int


class _Model(_Graph):
    def __init__(self, network: StyleNetwork) -> None:
        super().__init__()
        self._network = network

    def build(self, ranges: dict[str, Range]) -> onnx.ModelProto:
        network, tensors = self._network, helper.make_tensor_value_info
        slots, numbers = len(network.bank), network.statistics_size
        shape: list[str | int | None] = [1, "height", "width", 3]
        branches = {
            name: _Painter(self, network, ranges, held=held).branch(
                tensors(f"painted_{held}", TensorProto.UINT8, shape),
                tensors(f"used_{held}", TensorProto.FLOAT, [1, numbers]),
            )
            for name, held in (("then_branch", True), ("else_branch", False))
        }
        entirely = self.add("Reshape", self.add("Equal", "hold", np.float32(1)), _int64())
        painted, _ = self.split("If", entirely, outputs=["painted", "used_statistics"], **branches)
        self._fade(painted)
        defaults = {"statistics": np.zeros((1, numbers), np.float32), "hold": np.zeros(1, np.float32)}
        graph = helper.make_graph(
            self.nodes,
            f"videonst-{network.tier}-int8",
            [
                tensors("frame", TensorProto.UINT8, shape),
                tensors("style_weights", TensorProto.FLOAT, [1, slots]),
                *(tensors(name, TensorProto.FLOAT, value.shape) for name, value in defaults.items()),
            ],
            [
                tensors("stylized", TensorProto.UINT8, shape),
                tensors("used_statistics", TensorProto.FLOAT, [1, numbers]),
            ],
            [*self.constants.values(), *(numpy_helper.from_array(value, name) for name, value in defaults.items())],
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def _fade(self, painted: str) -> None:
        """Fades to the photograph with the square of its weight, and does nothing where that is 0."""
        weight = self.add("Max", self.add("Gather", "style_weights", _int64(PHOTO), axis=1), np.float32(0))
        keep = self.add("Reshape", self.add("Mul", weight, weight), _int64(1))
        fading = self.add("Reshape", self.add("Greater", keep, np.float32(0)), _int64())
        mixed, plain = _Graph(self), _Graph(self)
        frame, values = (mixed.add("Cast", name, to=TensorProto.FLOAT) for name in ("frame", painted))
        values = mixed.add("Add", values, mixed.add("Mul", mixed.add("Sub", frame, values), keep))
        values = mixed.add("Cast", mixed.add("Add", values, np.float32(0.5)), to=TensorProto.UINT8)
        shape = [1, "height", "width", 3]
        self.add(
            "If",
            fading,
            output="stylized",
            then_branch=_branch(mixed, [values], TensorProto.UINT8, shape),
            else_branch=_branch(plain, [plain.add("Identity", painted)], TensorProto.UINT8, shape),
        )


class _Painter(_Graph):
    """A branch: from the frame to the painting, before that is faded.

    Args:
        outer: the graph that this is a branch of.
        network: left as it is.
        ranges: as for `build_int8_graph`.
        held: normalise with the statistics that are given, whatever the frame's own are.
    """

    def __init__(self, outer: _Graph, network: StyleNetwork, ranges: dict[str, Range], *, held: bool) -> None:
        super().__init__(outer)
        self._network, self._ranges, self._held = network, ranges, held
        self._used: list[str] = []
        self._own: list[Any] = []

    def branch(self, *outputs: Any) -> Any:
        """Painting and statistics in use."""
        network = self._network
        painted, used = (output.name for output in outputs)
        self._read_style()
        x = self._stem()
        for i, conv in enumerate(network.down):
            x = self._layer(f"down.{i}", conv, x)
        x = self._relu(x)
        for i in range(0, len(network.body), 2):
            y = self._layer(f"body.{i}", network.body[i], x)
            y = self._layer(f"body.{i + 1}", network.body[i + 1], y)
            x = replace(x, name=self.add("Add", x.name, y.name))
        for i, conv in enumerate(network.up):
            last = i + 1 == len(network.up)
            x = self._layer(f"up.{i}", conv, x, enlarged=True, padded=network.head if last else None)
        self._head(self._relu(x), painted)
        if self._held:
            self.add("Identity", "statistics", output=used)
        else:
            self.add("Concat", *self._used, output=used, axis=1)
        return helper.make_graph(self.nodes, painted, [], outputs, self._own)

    def _read_style(self) -> None:
        """What is to be known of each normalisation. With held statistics that is factor and summand, all at once;
        else γ and β of the mixture, mean and variance that are given, and what is added to the variance."""
        network = self._network
        phases = network.shuffle**2
        channels = [*network.norm_channels[:-1], phases * network.norm_channels[-1]]
        bank = self.constant(network.bank.detach().numpy(), "bank")
        rows = self._pairs(self.add("MatMul", "style_weights", bank), network.norm_channels)
        rows[-1] = [self.add("Concat", *[row] * phases, axis=1) for row in rows[-1]]
        given = self._pairs("statistics", channels)
        names = [name for name, module in network.named_modules() if isinstance(module, PaddedConv)]
        epsilon = [(EPSILON / self._steps(name) ** 2).astype(np.float32)[None] for name in names[:-1]]
        epsilon.append(np.full((1, channels[-1]), EPSILON, np.float32))
        self._norms: Iterator[Any] = zip(rows, given, epsilon, strict=True)
        if self._held:
            row, used = (
                [self.add("Concat", *of, axis=1) for of in zip(*pairs, strict=True)] for pairs in (rows, given)
            )
            affine = self._affine(row, used, np.concatenate(epsilon, axis=1))
            parts = [self.split("Split", of, _int64(*channels), outputs=[""] * len(channels), axis=1) for of in affine]
            self._norms = zip(*parts, strict=True)

    def _affine(self, row: Sequence[str], used: Sequence[str], epsilon: Floats) -> Sequence[str]:
        """What values are multiplied with and what is added, from γ and β and from mean and variance."""
        (gamma, beta), (mean, variance) = row, used
        scale = self.add("Div", gamma, self.add("Sqrt", self.add("Add", variance, epsilon)))
        return scale, self.add("Sub", beta, self.add("Mul", mean, scale))

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
        return self._normalised(self._convolved("stem", weight, x, 1 / 255, CENTRE, 1), width, outputs)

    def _layer(self, name: str, conv: Any, x: _Map, *, enlarged: bool = False, padded: Any = None) -> _Map:
        """`x` quantised, extended, convolved, normalised, extended for `padded`.

        Negative values are kept. Where the range of what reads them begins at 0, quantising does what ReLU would."""
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
        return self._normalised(y, width, conv.out_channels, padded)

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

    def _normalised(self, stored: str, width: str, channels: int, padded: Any = None) -> _Map:
        """Bytes as `_convolved` gives them, normalised, as floats, extended for the convolution `padded`."""
        x = _Map("", width, channels)
        scale, shift = (
            self.add("Reshape", v, _int64(-1)) for v in self._scale_and_shift(lambda: self._moments(stored, x))
        )
        if padded:
            stored = self._bordered(stored, padded)
            before, after = padded.border[:2]
            x = replace(x, width=self.add("Add", width, _int64(before + after)))
        identity = self.constant(np.eye(channels, dtype=np.int8), f"identity_{channels}")
        values = self.add("Reshape", stored, _int64(-1, channels))
        values = self.add(
            "MatMulIntegerToFloat", values, identity, np.float32(1), scale, "", "", shift, domain=_CONTRIB
        )
        return replace(x, name=values)

    def _moments(self, stored: str, x: _Map) -> list[str]:
        """Mean and mean square of bytes by channel, each (1, channels)."""
        values = self.add("Cast", stored, to=TensorProto.FLOAT)
        values = self.add("Reshape", values, self.add("Concat", _int64(-1), self._row(x), axis=0))  # quick to add up
        means = []
        for of in (values, self.add("Mul", values, values)):
            rows = self.add("Reshape", self.add("ReduceMean", of, _int64(0), keepdims=0), _int64(-1, x.channels))
            means.append(self.add("ReduceMean", rows, _int64(0), keepdims=1))
        return means

    def _scale_and_shift(self, measure: Callable[[], Sequence[str]]) -> Sequence[str]:
        """As `HeldStatistics` has it. `measure` adds what finds mean and mean square, each (1, channels)."""
        if self._held:
            affine: Sequence[str] = next(self._norms)
            return affine
        row, given, epsilon = next(self._norms)
        mean, square = measure()
        variance = self.add("Max", self.add("Sub", square, self.add("Mul", mean, mean)), np.float32(0))
        used = [
            self.add("Add", own, self.add("Mul", "hold", self.add("Sub", held, own)))
            for own, held in zip((mean, variance), given, strict=True)
        ]
        self._used += used
        return self._affine(row, used, epsilon)

    def _head(self, x: _Map, painted: str) -> None:
        """The last convolution in fp32, its normalisation, and depth-to-space in bytes: (1, H, W, 3)."""
        network, shuffle = self._network, self._network.shuffle
        phases = shuffle**2
        y = self.add("Reshape", x.name, self.add("Concat", _int64(1, -1), x.width, _int64(x.channels), axis=0))
        y = self.add("Transpose", y, perm=[0, 3, 1, 2])
        # Colours beside each other, as the frame has them, instead of phases.
        order = [colour * phases + phase for phase in range(phases) for colour in range(3)]
        weight = network.head.weight.detach().numpy()[order]
        # Of the branch itself: ONNX Runtime lays out the weights of a convolution in fp32 only where they are.
        self._own = [numpy_helper.from_array(weight, f"{painted}.head.weight")]
        y = self.add("Conv", y, self._own[0].name, kernel_shape=weight.shape[2:])

        def measure() -> list[str]:
            squares = self.add("Mul", y, y)
            return [self.add("Reshape", self.add("ReduceMean", of, _int64(2, 3)), _int64(1, -1)) for of in (y, squares)]

        scale, shift = (self.add("Reshape", v, _int64(1, -1, 1, 1)) for v in self._scale_and_shift(measure))
        y = self.add("Sigmoid", self.add("Add", self.add("Mul", y, scale), shift))
        y = self.add(
            "Cast", self.add("Add", self.add("Mul", y, np.float32(255)), np.float32(0.5)), to=TensorProto.UINT8
        )
        border, after = network.head.border[:2]
        width = self.add("Sub", x.width, _int64(border + after))
        y = self.add("Transpose", y, perm=[0, 2, 3, 1])
        y = self.add("Reshape", y, self.add("Concat", _int64(-1), width, _int64(shuffle, 3 * shuffle), axis=0))
        y = self.add("Transpose", y, perm=[0, 2, 1, 3])
        width = self.add("Mul", width, _int64(shuffle))
        y = self.add("Reshape", y, self.add("Concat", _int64(1, -1), width, _int64(3), axis=0))
        sides = self.add("Slice", self.add("Shape", "frame"), _int64(1), _int64(3))
        self.add("Slice", y, _int64(0, 0), sides, _int64(1, 2), output=painted)

    def _relu(self, x: _Map) -> _Map:
        return replace(x, name=self.add("Relu", x.name))

    def _row(self, x: _Map) -> str:
        """Values in a row of the map, (1,)."""
        return self.add("Mul", x.width, _int64(x.channels))

    def _bordered(self, x: str, conv: PaddedConv) -> str:
        before, after = conv.border[:2]
        return self.add("Pad", x, _int64(0, before, before, 0, 0, after, after, 0), mode="reflect")


def _branch(graph: _Graph, outputs: Sequence[str], kind: int, shape: Sequence[Any]) -> Any:
    made = [helper.make_tensor_value_info(name, kind, shape) for name in outputs]
    return helper.make_graph(graph.nodes, f"for_{outputs[0]}", [], made)


def _int64(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


_LEAST_RANGE = 1e-6
"""Of a channel that never changes, so that nothing is divided by 0."""
