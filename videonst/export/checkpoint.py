"""From training runs to model files and back."""

import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from videonst.demo import PORTRAIT
from videonst.engines.metadata import StyleInfo, TrainingInfo, read_metadata
from videonst.errors import InputError, VideoNSTError
from videonst.export.int8 import export_int8
from videonst.export.onnx import describe_paintings, export_onnx, load_network
from videonst.network import StyleNetwork
from videonst.sources import open_source
from videonst.training import Recipe, Trainer, make_recipe
from videonst.training.data import Photographs

log = logging.getLogger(__name__)

PHOTOGRAPHS_PER_STYLE = 2
CALIBRATION_CROP = 256
"""Side of the photographs on which 8-bit ranges are set, pixels; the size of training."""


def export_run(trainer: Trainer, out: Path, data: str = "unknown") -> list[Path]:
    """Writes the network of a run as `out` (fp32) and beside it `*.fp16.onnx` (for GPUs) and `*.int8.onnx` (for CPUs,
    where speed counts most).

    Args:
        trainer: a run, finished or not.
        out: target, ending in .onnx.
        data: what the photographs are, in words, for the metadata.
    """
    styles = describe_paintings(trainer.paintings)
    written = _export(trainer.network, styles, _training(trainer.recipe, trainer.step, data), out)
    try:
        return [*written, _export_int8(out, len(styles), trainer.photographs)]
    except VideoNSTError as error:  # after a few steps 8 bits may not hold what the network does; the rest is good
        log.warning("no 8-bit file was written: %s", error)
        return written


def export_file(source: Path, out: Path, data: str = "unknown", photographs: Path | None = None) -> list[Path]:
    """As `export_run`, from the checkpoint of a run or from a model file in fp32, which keeps what it says of its
    training.

    Args:
        source: checkpoint, or model ending in .onnx; may be `out` itself.
        out: target, ending in .onnx.
        data: what the photographs of a checkpoint were, in words.
        photographs: folder to calibrate the 8-bit file on; None writes no such file.

    Raises:
        InputError: the file is missing, or neither checkpoint nor model in fp32.
    """
    calibration = Photographs(photographs, seed=0) if photographs else None
    if source.suffix == ".onnx":
        metadata = read_metadata(source)
        if metadata.precision != "fp32":
            raise InputError(f"{source} is in {metadata.precision}; give the fp32 file of the model")
        network, styles, training = load_network(source), metadata.styles, metadata.training
    else:
        state = _read(source)
        recipe = make_recipe(state["recipe"], str(source))
        styles = tuple(StyleInfo(**style) for style in state["styles"])
        network, training = _network(state), _training(recipe, state["step"], data)
    written = _export(network, styles, training, out)
    return [*written, _export_int8(out, len(styles), calibration)] if calibration else written


def read_start(path: Path) -> StyleNetwork:
    """The network of a model file (.onnx) or a checkpoint, for a warm start.

    Raises:
        InputError: the file is missing or neither.
    """
    return load_network(path) if path.suffix == ".onnx" else _network(_read(path))


def _network(state: dict[str, Any]) -> StyleNetwork:
    network = StyleNetwork(state["recipe"]["tier"], len(state["styles"]))
    network.load_state_dict(state["network"])
    return network


def _read(checkpoint: Path) -> dict[str, Any]:
    if not checkpoint.is_file():
        raise InputError(f"there is no checkpoint {checkpoint}; expected checkpoint.pt of a training run")
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return {key: state[key] for key in ("recipe", "styles", "network", "step")}
    except Exception as error:  # torch raises a dozen kinds for a foreign or broken file
        raise InputError(f"{checkpoint} is no checkpoint of a training run ({type(error).__name__})") from error


def _export(network: StyleNetwork, styles: Sequence[StyleInfo], training: TrainingInfo, out: Path) -> list[Path]:
    with open_source(PORTRAIT) as source:
        portrait = next(iter(source)).pixels
    half = out.with_name(f"{out.stem}.fp16.onnx")
    for path, precision in ((out, "fp32"), (half, "fp16")):
        export_onnx(network, path, styles=styles, precision=precision, training=training, photo=portrait)
    _int8(out).unlink(missing_ok=True)  # of other weights
    return [out, half]


def _export_int8(out: Path, styles: int, photographs: Photographs) -> Path:
    crops = photographs.batch(0, PHOTOGRAPHS_PER_STYLE * styles, CALIBRATION_CROP, (1.0, 1.0))
    export_int8(out, _int8(out), list((crops * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()))
    return _int8(out)


def _int8(out: Path) -> Path:
    return out.with_name(f"{out.stem}.int8.onnx")


def _training(recipe: Recipe, steps: int, data: str) -> TrainingInfo:
    return TrainingInfo(recipe=recipe.to_dict(), steps=steps, commit=_commit(), data=data)


def _commit() -> str:
    """Commit of the source tree this module lies in, "unknown" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
