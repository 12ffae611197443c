"""Writes a network as an ONNX model that describes itself, after checking it against torch."""

import base64
import copy
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from videonst.engines.metadata import (
    HeldGraph,
    ModelMetadata,
    Parity,
    SizeRules,
    StyleInfo,
    TrainingInfo,
    held_model,
    read_metadata,
)
from videonst.engines.providers import open_session
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Pixels
from videonst.models import writing_model
from videonst.network import TIERS, StyleNetwork
from videonst.network.model import PHOTO, Normalise
from videonst.training.data import Painting

log = logging.getLogger(__name__)

OPSET = 18
"""Newer operator versions lack CUDA kernels in releases of ONNX Runtime still in use (onnxruntime issue 26393)."""

MINIMUM_SIZE = 16
"""Smallest side of a frame, pixels: the reflected borders must be narrower than what they border."""

PARITY_SIZES = ((64, 64), (97, 131), (180, 320))
"""Height and width of the frames on which the file is compared with torch."""

# Limits of the difference to torch, levels of 8 bit. In fp32 only values on the edge of rounding may differ.
FP32_OVER_ONE = 0.001
FP16_MEAN = 0.5
FP16_P99_9 = 4.0
INT8_MEAN = 4.0
INT8_P99_9 = 40.0
HELD_P99_9 = 1.0
"""With held statistics, to the same graph without the short cut."""
FP16_PEAK = 8192.0
"""Largest output of a convolution in an fp16 file: an eighth of what the format holds, for frames not tested here.

ONNX Runtime's CPU provider computes fp16 convolutions in fp32, so the comparison itself cannot see an overflow.
"""

GRAPH_PRECISIONS = ("fp32", "fp16")
"""What the network itself is exported in; 8-bit files are made from an fp32 file (`int8.py`)."""

THUMBNAIL_SIZE = 96
PAINTED_SIZE = 3 * THUMBNAIL_SIZE
"""Short side at which thumbnails are painted before they are shrunk: strokes look as on a frame, not enlarged."""
THUMBNAIL_QUALITY = 80


def export_onnx(
    network: StyleNetwork,
    path: Path,
    *,
    styles: Sequence[StyleInfo],
    precision: str = "fp32",
    training: TrainingInfo | None = None,
    photo: Pixels | None = None,
) -> ModelMetadata:
    """Writes a model file. It appears at `path` complete and checked, or not at all.

    Graph: `frame` uint8 (1, H, W, 3) RGB and `style_weights` float32 (1, styles + 1), slot 0 the photograph, give
    `stylized` uint8 (1, H, W, 3). H and W are free from 16 up. Two inputs more may be left out: `statistics`, float32
    (1, n), as an earlier frame gave it in the output `used_statistics`, and `hold` (1,), its weight; see
    `HeldStatistics`.

    Args:
        network: trained network; left as it is.
        path: target, ending in .onnx; replaced if it exists.
        styles: in slot order from 1, as many as the network has; their thumbnails are replaced where `photo` is given.
        precision: "fp32", or "fp16" for GPUs: half-precision convolutions, normalisation statistics in fp32.
        training: where the weights come from.
        photo: picture that the thumbnails repaint.

    Returns:
        What the file says about itself, the measured parity included.

    Raises:
        InputError: styles that do not fit the network, or a target that cannot be written.
        VideoNSTError: the file does not paint as torch does, or half precision could overflow.
    """
    if precision not in GRAPH_PRECISIONS:
        raise InputError(f"precision is {precision!r}, expected {' or '.join(GRAPH_PRECISIONS)}")
    slots = len(network.bank)
    if len(styles) != slots - 1:
        raise InputError(f"{len(styles)} styles are described, the network has {slots - 1}; describe each, in order")
    if path.suffix != ".onnx":
        raise InputError(f"cannot write a model to {path}; expected a name ending in .onnx")
    reference = FrameNetwork(copy.deepcopy(network).float().cpu()).eval()
    metadata = ModelMetadata(
        tier=network.tier,
        styles=add_thumbnails(reference, styles, photo) if photo is not None else tuple(styles),
        size=SizeRules(minimum=MINIMUM_SIZE),
        training=training or TrainingInfo(),
        opset=OPSET,
        precision=precision,
    )
    if precision == "fp16":
        _require_range(reference)
    model = build_graph(reference.network, precision)
    metadata = dataclasses.replace(metadata, held=share_weights(build_held_graph(reference.network, precision)))
    with writing_model(path) as part:
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, part)
        metadata = dataclasses.replace(metadata, parity=measure_parity(part, reference))
        require_parity(metadata)
        _require_held(part, metadata)
        onnx.helper.set_model_props(model, metadata.to_properties())
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, part)
    return metadata


def load_network(path: Path) -> StyleNetwork:
    """The network of a model file, bit for bit what was exported (rounded to half precision in an fp16 file).

    Raises:
        InputError: no videonst model, or weights that do not fit its tier.
    """
    metadata = read_metadata(path)
    if metadata.tier not in TIERS:
        raise InputError(f"{path} has the unknown tier {metadata.tier!r}; expected one of {', '.join(TIERS)}")
    network = StyleNetwork(metadata.tier, len(metadata.styles))
    names = network.state_dict().keys()
    state = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in onnx.load(path).graph.initializer
        if tensor.name in names
    }
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"the weights of {path} do not fit tier {metadata.tier}; export the model again") from error
    return network


def describe_paintings(paintings: Sequence[Painting]) -> tuple[StyleInfo, ...]:
    """What a model says about the paintings that it was trained on."""
    return tuple(
        StyleInfo(name=p.name, title=p.title, artist=p.artist, year=p.year, licence=p.licence) for p in paintings
    )


class FrameNetwork(nn.Module):
    """The network with 8-bit frames at both ends."""

    def __init__(self, network: StyleNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor, style_weights: Tensor, norm: Normalise | None = None) -> Tensor:
        """Repaints `frame`, uint8 (1, H, W, 3), with `style_weights`, float32 (1, styles + 1); same shape and type."""
        x = frame.permute(0, 3, 1, 2).to(self.network.stem.weight.dtype) / 255
        y: Tensor = self.network(x, style_weights, norm)
        return (y * 255 + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    @torch.no_grad()
    def paint(self, frame: Pixels, weights: npt.NDArray[np.float32]) -> Pixels:
        """Repaints (H, W, 3) with (styles + 1,)."""
        painted: Pixels = self(torch.from_numpy(frame)[None], torch.from_numpy(weights)[None])[0].numpy()
        return painted


class HoldingNetwork(FrameNetwork):
    """The same with statistics that may be held, as the graph has it."""

    def forward(  # type: ignore[override]
        self, frame: Tensor, style_weights: Tensor, statistics: Tensor, hold: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The repainted frame, and the statistics that it was normalised with; see `HeldStatistics`."""
        norm = self.network.hold(statistics, hold)
        return super().forward(frame, style_weights, norm), norm.used()


class EntirelyHeldNetwork(FrameNetwork):
    """The same with statistics that are held entirely; paints what `HoldingNetwork` does with hold 1."""

    def forward(  # type: ignore[override]
        self, frame: Tensor, style_weights: Tensor, statistics: Tensor
    ) -> Tensor:
        norm = self.network.hold_entirely(statistics, style_weights)
        return super().forward(frame, style_weights, norm)


def build_graph(network: StyleNetwork, precision: str, *, holding: bool = True) -> onnx.ModelProto:
    """The graph, with weights under the names that they have in the network.

    Args:
        network: left as it is.
        precision: of `GRAPH_PRECISIONS`.
        holding: with the inputs and the output of `HoldingNetwork`.
    """
    network = _in_precision(network, precision)
    defaults = {"statistics": torch.zeros(1, network.statistics_size), "hold": torch.zeros(1)} if holding else {}
    proto = _exported((HoldingNetwork if holding else FrameNetwork)(network), defaults)
    # An input that is an initialiser too may be left out, and has this value then: each frame's own statistics.
    proto.graph.initializer.extend(numpy_helper.from_array(value.numpy(), name) for name, value in defaults.items())
    return proto


def build_held_graph(network: StyleNetwork, precision: str) -> onnx.ModelProto:
    """The graph for frames whose statistics are held entirely, with weights under the same names.

    Args:
        network, precision: as for `build_graph`.
    """
    network = _in_precision(network, precision)
    return _exported(EntirelyHeldNetwork(network), {"statistics": torch.zeros(1, network.statistics_size)})


def _in_precision(network: StyleNetwork, precision: str) -> StyleNetwork:
    network = copy.deepcopy(network)
    if precision == "fp16":
        bank = network.bank.data
        network.half().bank.data = bank  # mixtures of γ and β are made in fp32
    return network


def _exported(frames: FrameNetwork, more: dict[str, Tensor]) -> onnx.ModelProto:
    """The graph of `frames`, with inputs `more` of fixed size."""
    network = frames.network
    side = torch.export.Dim("height", min=MINIMUM_SIZE), torch.export.Dim("width", min=MINIMUM_SIZE)
    program = torch.onnx.export(
        frames.eval(),
        (torch.zeros(1, 61, 79, 3, dtype=torch.uint8), torch.zeros(1, len(network.bank)), *more.values()),
        input_names=["frame", "style_weights", *more],
        output_names=["stylized", "used_statistics"] if isinstance(frames, HoldingNetwork) else ["stylized"],
        dynamic_shapes={"frame": {1: side[0], 2: side[1]}, "style_weights": {}} | {name: {} for name in more},
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None  # dynamo=True returns one
    model = program.model
    for weight in list(model.graph.initializers.values()):
        weight.name = str(weight.name).removeprefix("network.")
    model.graph.outputs[0].shape = model.graph.inputs[0].shape
    # The exporter leaves stack traces, with the paths of this machine.
    model.graph.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    model.graph.name = f"videonst-{network.tier}"
    proto: onnx.ModelProto = program.model_proto
    return proto


def share_weights(held: onnx.ModelProto) -> HeldGraph:
    """`held` without the weights, which the file has, and for as many styles as that holds."""
    graph = held.graph
    weights = tuple(tensor.name for tensor in graph.initializer if _is_weight(tensor.name))
    own = [tensor for tensor in graph.initializer if tensor.name not in weights]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(own)
    (styles,) = [value for value in graph.input if value.name == "style_weights"]
    styles.type.tensor_type.shape.dim[1].dim_param = "slots"
    return HeldGraph(model=base64.b64encode(held.SerializeToString()).decode(), weights=weights)


def _is_weight(name: str) -> bool:
    return name == "bank" or name.endswith(".weight")


def _require_held(path: Path, metadata: ModelMetadata) -> None:
    """Refuses a second graph that does not paint what the first does with statistics that are held entirely.

    Raises:
        VideoNSTError: with what was measured.
    """
    assert metadata.held
    threads = torch.get_num_threads()
    whole, held = (open_session(model, "cpu", threads) for model in (path, held_model(path, metadata.held)))
    slots = len(metadata.styles) + 1
    for height, width in PARITY_SIZES:
        frame = _test_picture(height, width)[None]
        for mix in _mixtures(slots):
            feed = {"frame": frame, "style_weights": mix[None]}
            feed["statistics"] = whole.run(["used_statistics"], feed | {"frame": 255 - frame})[0]
            (expected,) = whole.run(["stylized"], feed | {"hold": np.ones(1, np.float32)})
            difference = np.abs(np.subtract(held.run(None, feed)[0], expected, dtype=np.int16))
            if np.percentile(difference, 99.9) > HELD_P99_9:
                raise VideoNSTError(
                    "the exported model paints otherwise where statistics are held entirely: "
                    f"{(difference > HELD_P99_9).mean():.2%} of the values at {width}x{height} are off by more than "
                    f"{HELD_P99_9:g} level, allowed is 0.1 %; nothing was written"
                )


def measure_parity(model: Path | bytes, reference: FrameNetwork) -> tuple[Parity, ...]:
    """Compares a file, or its content, on ONNX Runtime's CPU provider, with torch in fp32."""
    session = open_session(model, "cpu", threads=torch.get_num_threads())
    slots = len(reference.network.bank)
    found = []
    for height, width in PARITY_SIZES:
        frame = _test_picture(height, width)
        # Every style alone on the smallest frames; on the others what mixes all of them.
        mixes = _mixtures(slots) + (list(np.eye(slots, dtype=np.float32)) if (height, width) == PARITY_SIZES[0] else [])
        pairs = [
            (session.run(None, {"frame": frame[None], "style_weights": mix[None]})[0][0], reference.paint(frame, mix))
            for mix in mixes
        ]
        difference = np.abs(np.subtract(*np.array(pairs, np.int16).swapaxes(0, 1)))
        found.append(
            Parity(
                height=height,
                width=width,
                maximum=int(difference.max()),
                mean=round(float(difference.mean()), 5),
                p99_9=float(np.percentile(difference, 99.9)),
                over_one=round(float((difference > 1).mean()), 7),
            )
        )
    return tuple(found)


def require_parity(metadata: ModelMetadata) -> None:
    """Refuses a file whose measured parity is worse than its precision allows.

    Raises:
        VideoNSTError: with what was measured and what is allowed.
    """
    for parity in metadata.parity:
        if metadata.precision == "fp32":
            good = parity.over_one <= FP32_OVER_ONE
            limit = f"{FP32_OVER_ONE:.1%} of the values off by more than one level"
        else:
            mean, p99_9 = (FP16_MEAN, FP16_P99_9) if metadata.precision == "fp16" else (INT8_MEAN, INT8_P99_9)
            good = parity.mean <= mean and parity.p99_9 <= p99_9
            limit = f"a mean of {mean:g} and a 99.9th percentile of {p99_9:g} levels"
        log.info("%s", parity)
        if not good:
            raise VideoNSTError(
                f"the exported model does not paint as torch does at {parity.width}x{parity.height}: "
                f"{parity.over_one:.2%} of the values off by more than one level, mean {parity.mean:g}, "
                f"99.9th percentile {parity.p99_9:g}, maximum {parity.maximum}; allowed is {limit}; nothing was written"
            )


def _require_range(reference: FrameNetwork) -> None:
    peaks: list[float] = []
    hooks = [
        conv.register_forward_hook(lambda _conv, _inputs, output: peaks.append(float(output.abs().max())))
        for conv in reference.modules()
        if isinstance(conv, nn.Conv2d)
    ]
    for mix in np.eye(len(reference.network.bank), dtype=np.float32):
        reference.paint(_test_picture(*PARITY_SIZES[0]), mix)
    for hook in hooks:
        hook.remove()
    if not max(peaks) <= FP16_PEAK:
        raise VideoNSTError(
            f"a convolution reaches {max(peaks):.3g}, too near to the {torch.finfo(torch.float16).max:g} that half "
            f"precision holds (limit {FP16_PEAK:g}); export in fp32; nothing was written"
        )


def _mixtures(slots: int) -> list[npt.NDArray[np.float32]]:
    """The photograph, all styles evenly, half strength, and the last style at strength 1.3. Each (slots,)."""
    photo = np.eye(slots, dtype=np.float32)[PHOTO]
    last = np.eye(slots, dtype=np.float32)[-1]
    even = (1 - photo) / (slots - 1)
    return [photo, even, (photo + even) / 2, 1.3 * last - np.float32(0.3) * photo]


def _test_picture(height: int, width: int) -> Pixels:
    """Smooth colours with grain over them, (height, width, 3), always the same."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (4, 5, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grainy: Pixels = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    return grainy


def add_thumbnails(
    reference: FrameNetwork, styles: Sequence[StyleInfo], photo: Pixels, first: int = PHOTO + 1
) -> tuple[StyleInfo, ...]:
    """The styles, which have the slots from `first` on, each with the middle of the photograph repainted in it."""
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    square = photo[top : top + side, left : left + side]
    square = cv2.resize(square, (PAINTED_SIZE, PAINTED_SIZE), interpolation=cv2.INTER_AREA).astype(np.uint8)
    slots = np.eye(len(reference.network.bank), dtype=np.float32)
    return tuple(
        dataclasses.replace(style, thumbnail=_data_uri(reference.paint(square, slots[first + i])))
        for i, style in enumerate(styles)
    )


def _data_uri(picture: Pixels) -> str:
    small = cv2.resize(picture, (THUMBNAIL_SIZE, THUMBNAIL_SIZE), interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), quality)
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
