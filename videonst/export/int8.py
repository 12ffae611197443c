"""8-bit convolutions for CPUs: static quantisation of an exported model, calibrated on photographs.

Jacob et al.: *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*, CVPR 2018,
as ONNX Runtime implements it: weights int8 with a scale for each output channel, activations uint8 with a fixed range.
"""

import contextlib
import dataclasses
import io
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from videonst.engines.metadata import ModelMetadata, read_metadata
from videonst.errors import InputError
from videonst.export.onnx import FrameNetwork, build_graph, load_network, measure_parity, require_parity
from videonst.frame import Pixels

PERCENTILE = 99.99
"""Share of the activations, in per cent, that the range of a tensor holds; the rest is clipped."""


def export_int8(model: Path, path: Path, photographs: Sequence[Pixels]) -> ModelMetadata:
    """Writes the fp32 file `model` with 8-bit convolutions as `path`, complete and compared with torch, or not at all.

    The first and the last convolution stay in fp32: they touch the picture itself, and on them 8 bits would show.
    Weights, bank and all else are as in `model`, but normalisation statistics cannot be held: the reductions of
    `HeldStatistics` would cost most of the time that 8 bits save. For CPUs only.

    Args:
        model: a model file in fp32.
        path: target, ending in .onnx; replaced if it exists.
        photographs: RGB, uint8, (height, width, 3); the activations that they cause, in every style in turn, set the
            ranges. Two or more for each style are enough.

    Returns:
        What the file says about itself, the measured parity included.

    Raises:
        InputError: `model` is not in fp32, no photographs, or a target that cannot be written.
        VideoNSTError: the file paints too differently.
    """
    metadata = read_metadata(model)
    if metadata.precision != "fp32":
        raise InputError(f"{model} is in {metadata.precision}; give the fp32 file of the model")
    if not photographs:
        raise InputError("there are no photographs to calibrate on; give a folder of some")
    with tempfile.TemporaryDirectory() as folder:
        network = load_network(model)
        plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        onnx.save(build_graph(network, "fp32", holding=False), plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        part = Path(folder) / "int8.onnx"
        with contextlib.redirect_stdout(io.StringIO()):  # the calibration prints
            quantize_static(
                prepared,
                part,
                _Photographs(photographs, len(metadata.styles) + 1),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=[convolutions[0], convolutions[-1]],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": PERCENTILE},
            )
        quantised = onnx.load(part)
        _quantise_before_borders(quantised.graph)
        onnx.checker.check_model(quantised)
        onnx.save(quantised, part)
        parity = measure_parity(part, FrameNetwork(network).eval())
        metadata = dataclasses.replace(metadata, precision="int8", parity=parity)
        require_parity(metadata)
    onnx.helper.set_model_props(quantised, metadata.to_properties())
    part = path.with_name(f".{path.name}.part")
    try:
        onnx.save(quantised, part)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"cannot write the model {path}: {error.strerror}; give another target") from error
    return metadata


def _quantise_before_borders(graph: onnx.GraphProto) -> None:
    """Moves every quantisation before the borders and the nearest-neighbour step in front of it: these only copy
    values, and copy bytes four times as fast as floats. The graph computes the same, bit for bit."""
    made_by = {output: node for node in graph.node for output in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    for quantisation in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        while (copying := made_by.get(quantisation.input[0])) is not None:
            if copying.op_type not in ("Pad", "Resize") or readers[copying.output[0]] > 1:
                break
            source, between, result = copying.input[0], copying.output[0], quantisation.output[0]
            quantisation.input[0], quantisation.output[0] = source, between
            copying.input[0], copying.output[0] = between, result
            made_by |= {between: quantisation, result: copying}
    _sort(graph)
    del graph.value_info[:]  # types of what lies between have changed


def _sort(graph: onnx.GraphProto) -> None:
    """Puts every node after those that it reads from."""
    known = {"", *(value.name for value in (*graph.input, *graph.initializer))}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        ordered += ready
        known.update(name for node in ready for name in node.output)
        waiting = [node for node in waiting if node not in ready]
    del graph.node[:]
    graph.node.extend(ordered)


class _Photographs(CalibrationDataReader):  # type: ignore[misc]
    """Every photograph once, the styles in turn."""

    def __init__(self, photographs: Sequence[Pixels], slots: int) -> None:
        self._feeds = self._make(photographs, slots)

    @staticmethod
    def _make(photographs: Sequence[Pixels], slots: int) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        styles = np.eye(slots, dtype=np.float32)[1:]
        for i, photograph in enumerate(photographs):
            yield {"frame": photograph[None], "style_weights": styles[i % len(styles)][None]}

    def get_next(self) -> dict[str, npt.NDArray[np.generic]] | None:
        return next(self._feeds, None)
