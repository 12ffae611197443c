"""`videonst learn`: a style of one's own."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videonst.cli.console import Overwrite, time_left
from videonst.errors import InputError

if TYPE_CHECKING:
    from videonst.training.learn import LearnProgress

LINE_SECONDS = 15.0
"""Between two lines of progress where stderr is no terminal."""


def command(
    paintings: Annotated[list[Path], typer.Argument(metavar="PAINTING...", help="Pictures, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Model file to write (.onnx); the run lives in OUT.learning/.")],
    into: Annotated[str, typer.Option(help="What to add to: fast, tiny, full, or the path of an .onnx file.")] = "fast",
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="One style of all pictures, by this name.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Time to learn in, at most; all styles together.")] = 5.0,
    steps: Annotated[
        int | None, typer.Option(help="Number of steps instead of a time: the same result in every run.")
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength-of-style", help="1 as the shipped styles; more takes less of the photograph.")
    ] = 1.0,
    stroke_size: Annotated[str, typer.Option(help="small, medium or large.")] = "medium",
    content: Annotated[
        Path | None,
        typer.Option(help="Photographs (folder), or the clip to be converted; default: a built-in set."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the painting, for the model's description.")] = None,
    artist: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    year: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    licence: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    features: Annotated[
        str, typer.Option(help="vgg19, compact, or auto: VGG-19 where its weights are, else compact.")
    ] = "auto",
    vgg: Annotated[Path | None, typer.Option(help="VGG-19 weights; default: torchvision's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    compile: Annotated[
        bool, typer.Option(help="Fuse with torch.compile: a minute or more to start, then faster.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Another one gives a slightly different result.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what an interrupted run has left.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Write OUT.int8.onnx too, for live painting on CPUs.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Add styles to a model: learn them from paintings in minutes. Ctrl-C ends early and keeps the best so far."""
    try:
        import torch

        from videonst import learn
        from videonst.training.budget import LearnSettings
    except ModuleNotFoundError as error:
        raise InputError(f"learning a style needs {error.name}; run: pip install 'videonst[train]'") from error
    if threads:
        torch.set_num_threads(threads)
    settings = LearnSettings(minutes=minutes, steps=steps, strength=strength, stroke_size=stroke_size, seed=seed)
    before = _changed(out)
    try:
        with _progress() as report:
            made = learn(
                paintings, out, into=into, name=name, title=title, artist=artist, year=year, licence=licence,
                content=content, settings=settings, features=features, vgg=vgg, device=device, compile=compile,
                resume=resume, overwrite=overwrite, int8=int8, progress=report,
            )  # fmt: skip
    except KeyboardInterrupt:
        if _changed(out) != before:
            typer.echo(f"interrupted; {out} has the best so far, --resume goes on", err=True)
        raise
    for style in made:
        assert style.learnt is not None
        typer.echo(
            f"{style.name}: {style.learnt.steps} steps in {style.learnt.seconds / 60:.1f} minutes, "
            f"features of {style.learnt.features}, score {style.learnt.score:.3f}",
            err=True,
        )
    typer.echo(str(out))


def _changed(path: Path) -> int:
    """When, in nanoseconds; 0 where it is not there."""
    return path.stat().st_mtime_ns if path.exists() else 0


@contextmanager
def _progress() -> Iterator[Callable[["LearnProgress"], None]]:
    """A bar with the time left and the scores, or a line now and then where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rest]}"))
    told = -math.inf
    said: list[str] = []
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("preparing", total=1.0, rest="")

        def report(progress: "LearnProgress") -> None:
            nonlocal told
            if not said:
                typer.echo(f"features: {progress.features}", err=True)
                said.append(progress.features)
            scores = ", ".join(f"{n} {s:.3f}" for n, s in progress.scores.items() if not math.isnan(s))
            left = None if math.isnan(progress.seconds_left) else progress.seconds_left
            rest = f"step {progress.step}, {time_left(left)}" + (f", score {scores}" if scores else "")
            bar.update(task, description=progress.state, completed=progress.share, rest=rest)
            if bar.disable and progress.seconds - told >= LINE_SECONDS:
                told = progress.seconds
                typer.echo(f"{progress.state}: {rest}", err=True)

        yield report
