"""`videonst export`: a training run's checkpoint, or a model of an earlier version, to model files."""

from pathlib import Path
from typing import Annotated

import typer

from videonst.errors import InputError


def command(
    source: Annotated[Path, typer.Argument(help="checkpoint.pt of a training run, or a model file in fp32.")],
    out: Annotated[Path, typer.Argument(help="Model file to write (.onnx); OUT.fp16.onnx goes beside it.")],
    calibrate: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Photographs to make OUT.int8.onnx with, for fast CPUs.")
    ] = None,
    data_note: Annotated[
        str, typer.Option(help="What the photographs of a run were, for the model's metadata.")
    ] = "unknown",
) -> None:
    """Write ONNX files in fp32 and fp16, and in 8 bits with --calibrate, each compared with torch before it appears."""
    try:
        from videonst.export.checkpoint import export_file
    except ModuleNotFoundError as error:
        raise InputError(f"export needs {error.name}; run: pip install 'videonst[train]'") from error
    for path in export_file(source, out, data_note, calibrate):
        typer.echo(str(path))
