"""`videonst export`: a training run's checkpoint to model files."""

from pathlib import Path
from typing import Annotated

import typer

from videonst.errors import InputError


def command(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pt of a training run.")],
    out: Annotated[Path, typer.Argument(help="Model file to write (.onnx); OUT.fp16.onnx goes beside it.")],
    data_note: Annotated[str, typer.Option(help="What the photographs were, for the model's metadata.")] = "unknown",
) -> None:
    """Write a checkpoint as ONNX, in fp32 and fp16, each compared with torch before it appears."""
    try:
        from videonst.export.checkpoint import export_checkpoint
    except ModuleNotFoundError as error:
        raise InputError(f"export needs {error.name}; run: pip install 'videonst[train]'") from error
    for path in export_checkpoint(checkpoint, out, data_note):
        typer.echo(str(path))
