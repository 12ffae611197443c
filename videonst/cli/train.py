"""`videonst train`: a network of one's own, or the shipped ones again."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videonst.cli.console import time_left
from videonst.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from videonst.training import Progress


def command(
    styles: Annotated[Path, typer.Option(help="Folder of paintings, with a styles.toml that describes them or not.")],
    content: Annotated[Path, typer.Option(help="Folder of photographs.")],
    out: Annotated[Path, typer.Option(help="Model file to write (.onnx); the run lives in OUT.training/.")],
    tier: Annotated[str | None, typer.Option(help="full, fast or tiny; instead of the recipe's.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML file with every hyper-parameter.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    features: Annotated[
        str | None,
        typer.Option(help="What the losses look through: vgg19, compact, or auto (VGG-19 if it is at hand)."),
    ] = None,
    vgg: Annotated[Path | None, typer.Option(help="VGG-19 weights; torchvision's are downloaded without.")] = None,
    start: Annotated[Path | None, typer.Option(help="Warm start from an .onnx model or a checkpoint.pt.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    compile: Annotated[bool, typer.Option(help="Fuse with torch.compile: slower to start, up to 2x a step.")] = False,
    data_note: Annotated[str, typer.Option(help="What the photographs are, for the model's metadata.")] = "unknown",
) -> None:
    """Train a style network. Run again with the same arguments to go on where a killed run stopped."""
    try:
        import torch

        from videonst.export.checkpoint import export_run, read_start
        from videonst.perceptual import open_features
        from videonst.training import Trainer, list_paintings, load_recipe, make_recipe, pick_device
    except ModuleNotFoundError as error:
        raise InputError(f"training needs {error.name}; run: pip install 'videonst[train]'") from error
    changes = {"tier": tier, "steps": steps, "batch": batch, "features": features}
    if recipe is None and (tier is None or steps is None):
        raise InputError("name a recipe with --recipe FILE, or at least --tier and --steps")
    plan = load_recipe(recipe, **changes) if recipe else make_recipe({k: v for k, v in changes.items() if v})
    if out.suffix != ".onnx":
        raise InputError(f"cannot write a model to {out}; expected a name ending in .onnx")
    if threads:
        torch.set_num_threads(threads)
    perceptual = open_features(plan.features, vgg)
    typer.echo(f"features: {perceptual.name}", err=True)
    trainer = Trainer(
        plan,
        list_paintings(styles),
        content,
        out.with_suffix(".training"),
        perceptual,
        device=pick_device(device),
        start=read_start(start) if start else None,
        compile=compile,
    )
    _show(trainer.run)
    if trainer.photographs.unreadable:
        typer.echo(f"{len(trainer.photographs.unreadable)} unreadable pictures were skipped", err=True)
    for path in export_run(trainer, out, data_note):
        typer.echo(str(path))


def _show(run: "Callable[[Callable[[Progress], None]], None]") -> None:
    """Runs with a bar on a terminal, or a line every 100 steps elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"))
    recent: list[float] = []
    with Bar(*columns, console=console, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("training", total=None, state="")

        def report(progress: "Progress") -> None:
            recent.append(progress.seconds)
            del recent[:-50]
            seconds = sum(recent) / len(recent)
            state = (
                f"{1 / seconds:.2f} steps/s, {time_left(seconds * (progress.steps - progress.step))}, "
                f"loss {progress.loss:.3f} (content {progress.content:.3f}, style {progress.style:.3f})"
            )
            if progress.warping_error is not None:
                state += f", warping error {progress.warping_error:.4f}"
            bar.update(task, completed=progress.step, total=progress.steps, state=state)
            if bar.disable and (progress.step % 100 == 0 or progress.step == progress.steps):
                typer.echo(f"step {progress.step}/{progress.steps}, {state}", err=True)

        run(report)
