"""`videonst styles`: what a model can paint, as a list or as a contact sheet; and changes of what a file holds."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from videonst.cli.console import Device, Json, Model, Overwrite, Strength, print_json
from videonst.errors import InputError


class _ShowByDefault(TyperGroup):
    """`videonst styles …` is `videonst styles show …` unless a command is named."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]
        named = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["show", *args])


app = typer.Typer(cls=_ShowByDefault, help="What a model can paint: show it, or change it.")


@app.command()
def edit(
    file: Annotated[str, typer.Argument(help="Model file; or fast, tiny, full, with --out.")],
    remove: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Style to leave out; repeatable.")] = None,
    rename: Annotated[list[str] | None, typer.Option(metavar="OLD=NEW", help="Repeatable.")] = None,
    merge: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Model with the same base whose styles to take over.")
    ] = None,
    order: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="Styles to put first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write there instead of replacing FILE.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Take out, rename, merge and order the styles of a model file, in this order. The others stay bit for bit."""
    from videonst.bank import edit_styles
    from videonst.models import find_model

    if not (remove or rename or merge or order):
        raise InputError("nothing to change; give --remove, --rename, --merge or --order")
    pairs = [pair.partition("=") for pair in rename or ()]
    if bad := next(("".join(pair) for pair in pairs if not (pair[0] and pair[2])), None):
        raise InputError(f"cannot read {bad!r}; expected --rename OLD=NEW")
    model = find_model(file)
    if out is None and model != Path(file).expanduser():
        raise InputError(f"{file} is a shipped model; name the file to write with --out")
    made = edit_styles(
        model,
        out,
        remove=remove or (),
        rename={old: new for old, _, new in pairs},
        merge=[find_model(other) for other in merge or ()],
        order=[name.strip() for name in order.split(",")] if order else (),
        overwrite=overwrite,
    )
    typer.echo(", ".join(made.style_names), err=True)
    typer.echo(str(out or model))


@app.command()
def show(
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
