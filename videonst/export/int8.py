"""8-bit convolutions for CPUs: static quantisation of an exported model, calibrated on photographs.

Jacob et al.: *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*, CVPR 2018,
weights int8 with a scale for each output channel, activations uint8 with fixed ranges. What the graph looks like:
`int8_graph.py`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor, nn

from videonst.engines.metadata import ModelMetadata, read_metadata
from videonst.errors import InputError
from videonst.export.int8_graph import CENTRE, Floats, Range, build_int8_graph
from videonst.export.onnx import FrameNetwork, load_network, measure_parity, require_parity
from videonst.frame import Pixels
from videonst.models import writing_model

PERCENTILE = 99.99
"""Share of the activations, in per cent, that a range holds on each side; the rest is clipped."""


def export_int8(model: Path, path: Path, photographs: Sequence[Pixels]) -> ModelMetadata:
    """Writes the fp32 file `model` with 8-bit convolutions as `path`, complete and compared with torch, or not at all.

    Bank, inputs and outputs are as in `model`. Statistics are counted in steps of the stored values, so that those of
    one file mean nothing to another. For CPUs only.

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
    network = load_network(model)
    reference = FrameNetwork(network).eval()
    quantised = build_int8_graph(network, _ranges(reference, photographs))
    onnx.checker.check_model(quantised)
    with writing_model(path) as part:
        onnx.save(quantised, part)
        metadata = dataclasses.replace(metadata, precision="int8", held=None, parity=measure_parity(part, reference))
        require_parity(metadata)
        onnx.helper.set_model_props(quantised, metadata.to_properties())
        onnx.save(quantised, part)
    return metadata


def _ranges(reference: FrameNetwork, photographs: Sequence[Pixels]) -> dict[str, Range]:
    """What each convolution reads and makes, over all photographs, each in one style, the styles in turn."""
    network = reference.network
    seen: dict[str, list[tuple[Floats, Floats]]] = {}
    # The first convolution reads the frame's bytes less their centre, which takes a constant out of each channel.
    constant = network.stem.weight.detach().numpy().sum((1, 2, 3)) * (CENTRE / 255)

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def hook(_conv: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            made = output[0].flatten(1).numpy() - (constant[:, None] if name == "stem" else 0)
            seen.setdefault(name, []).append((_spread(inputs[0].numpy().ravel()), _spread(made)))

        return hook

    named = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_hook(look(name)) for name, module in named]
    slots = np.eye(len(network.bank), dtype=np.float32)
    for i, photograph in enumerate(photographs):
        reference.paint(photograph, slots[1 + i % (len(slots) - 1)])
    for hook in hooks:
        hook.remove()
    found = {}
    for name, pairs in seen.items():
        read, made = (np.array(values) for values in zip(*pairs, strict=True))
        lowest, highest = read[:, 0].min(), read[:, 1].max()
        found[name] = Range((min(lowest, 0), max(highest, 0)), np.stack([made[:, 0].min(0), made[:, 1].max(0)]))
    return found


def _spread(values: Floats) -> Floats:
    """The range, of each row where there are rows, that holds all but what is clipped: (2,) or (2, rows)."""
    return np.percentile(values, [100 - PERCENTILE, PERCENTILE], axis=-1).astype(np.float32)
