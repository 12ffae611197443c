"""`videonst styles`: what a model can paint, as a list or as a contact sheet."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from videonst.cli.console import Device, Json, Model, Overwrite, Strength, print_json


def command(
    photo: Annotated[Path | None, typer.Argument(metavar="[PHOTO]", help="With --sheet: what to paint.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Paint PHOTO in every style, as one labelled picture.")] = None,
    strength: Strength = 1.0,
    model: Model = "fast",
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """List the styles of a model, or paint a photograph in all of them."""
    if sheet is not None or photo is not None:
        if sheet is None or photo is None:
            raise typer.BadParameter("a contact sheet needs both: --sheet SHEET.png PHOTO")
        from videonst.api import load
        from videonst.sheet import paint_sheet

        paint_sheet(load(model, device=device), photo, sheet, strength=strength, overwrite=overwrite)
        typer.echo(str(sheet), err=True)
        return
    from videonst.engines.metadata import read_metadata
    from videonst.models import find_model

    found = read_metadata(find_model(model)).styles
    if as_json:
        print_json([dataclasses.asdict(s) for s in found])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "title", "artist", "year", "licence", box=None)
    for s in found:
        table.add_row(s.name, s.title, s.artist, s.year, s.licence)
    Console().print(table)
