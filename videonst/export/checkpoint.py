"""From training runs to model files and back."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from videonst.demo import PORTRAIT
from videonst.engines.metadata import StyleInfo, TrainingInfo
from videonst.errors import InputError
from videonst.export.onnx import describe_paintings, export_onnx, load_network
from videonst.network import StyleNetwork
from videonst.sources import open_source
from videonst.training import Recipe, Trainer, make_recipe

PRECISIONS = {"fp32": ".onnx", "fp16": ".fp16.onnx"}


def export_run(trainer: Trainer, out: Path, data: str = "unknown") -> list[Path]:
    """Writes the network of a run as `out` (fp32, for the CPU) and beside it `*.fp16.onnx` (for GPUs).

    Args:
        trainer: a run, finished or not.
        out: target, ending in .onnx.
        data: what the photographs are, in words, for the metadata.
    """
    return _export(trainer.network, trainer.recipe, describe_paintings(trainer.paintings), trainer.step, out, data)


def export_checkpoint(checkpoint: Path, out: Path, data: str = "unknown") -> list[Path]:
    """As `export_run`, from the checkpoint of a run.

    Raises:
        InputError: the file is missing or no checkpoint.
    """
    state = _read(checkpoint)
    recipe = make_recipe(state["recipe"], str(checkpoint))
    styles = tuple(StyleInfo(**style) for style in state["styles"])
    return _export(_network(state), recipe, styles, state["step"], out, data)


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


def _export(
    network: StyleNetwork, recipe: Recipe, styles: Sequence[StyleInfo], steps: int, out: Path, data: str
) -> list[Path]:
    with open_source(PORTRAIT) as source:
        photo = next(iter(source)).pixels
    training = TrainingInfo(recipe=recipe.to_dict(), steps=steps, commit=_commit(), data=data)
    paths = []
    for precision, suffix in PRECISIONS.items():
        path = out.with_name(out.stem + suffix)
        export_onnx(network, path, styles=styles, precision=precision, training=training, photo=photo)
        paths.append(path)
    return paths


def _commit() -> str:
    """Commit of the source tree this module lies in, "unknown" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
