"""What the verbs share: options, progress bar, JSON. Progress and messages go to stderr, results to stdout."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videonst.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from videonst.batch import Job, Outcome
    from videonst.pipeline import PipelineProgress
    from videonst.temporal.flow import FlowProvider

STYLE_HELP = "Mixture of styles: NAME or NAME:SHARE,NAME:SHARE; see `videonst styles`."
Strength = Annotated[float, typer.Option(help="0 = untouched, 1 = as trained, up to 2.")]
KeepColour = Annotated[bool, typer.Option("--keep-colour", help="Keep the colours of the input.")]
Steady = Annotated[float, typer.Option(help="0 = each frame on its own, 1 = hold still.")]
Flow = Annotated[
    str,
    typer.Option(help="How motion is found: ultrafast, fast, medium, raft (needs torch) or a network (.onnx)."),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", help="fast, tiny, full; fast.int8, tiny.int8: quicker on CPUs; or an .onnx file."),
]
Device = Annotated[str, typer.Option(help="auto, cuda, tensorrt, coreml or cpu; only auto chooses.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


_interrupted = threading.Event()


def watch_for_interrupt() -> None:
    """Remembers Ctrl-C beside raising it: a KeyboardInterrupt inside a callback of FFmpeg's is lost there.

    Where SIGINT is ignored (a background job), it stays ignored.
    """

    def interrupt(number: int, stack: object) -> None:
        _interrupted.set()
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)


def complain(message: str) -> None:
    """One line about a failure."""
    typer.echo(f"videonst: {message}", err=True)


def is_given(context: typer.Context, option: str) -> bool:
    """Whether an option was on the command line, its default included."""
    return getattr(context.get_parameter_source(option), "name", "") == "COMMANDLINE"


def open_flow(name: str) -> "FlowProvider":
    """What `--flow` names; RAFT stands over the floor that the rest of the choice lives on."""
    from videonst.temporal import flow

    if name == "raft":
        try:
            from videonst.perceptual.raft import RaftFlow
        except ModuleNotFoundError as error:
            raise InputError(f"--flow raft needs {error.name}; run: pip install 'videonst[train]'") from error
        return RaftFlow()
    return flow.open_flow(name)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _bar(console: "Console") -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True)


def _updating(bar: "Progress", task: "TaskID") -> Callable[["PipelineProgress"], None]:
    def update(progress: "PipelineProgress") -> None:
        if _interrupted.is_set():
            raise KeyboardInterrupt
        bar.update(
            task,
            completed=progress.frames_done,
            total=progress.frames_total,
            rate=f"{progress.frames_per_second:.1f} fps",
            left=time_left(progress.seconds_left),
        )

    return update


@contextmanager
def frame_progress(label: str) -> Iterator[Callable[["PipelineProgress"], None]]:
    """A bar with frames per second and time left on stderr; silent where stderr is no terminal."""
    from rich.console import Console

    with _bar(Console(stderr=True)) as bar:
        yield _updating(bar, bar.add_task(label, total=None, rate="", left=""))


@contextmanager
def many_progress(
    count: int,
) -> Iterator[tuple[Callable[["Job"], Callable[["PipelineProgress"], None]], Callable[["Outcome"], "Outcome"]]]:
    """Two bars, for all and for the one at work; and a line for each that is done, on stderr."""
    from rich.console import Console

    with _bar(Console(stderr=True)) as bar:
        whole = bar.add_task("all", total=count, rate="", left="")
        current = bar.add_task("", total=None, rate="", left="")

        def begin(job: "Job") -> Callable[["PipelineProgress"], None]:
            bar.reset(current, description=job.source.name, total=None, rate="", left="")
            return _updating(bar, current)

        def report(outcome: "Outcome") -> "Outcome":
            bar.advance(whole)
            typer.echo(f"{outcome.job.source}: {outcome.error or outcome.status}", err=True)
            return outcome

        yield begin, report


def print_summary(outcomes: Sequence["Outcome"]) -> None:
    """A table of what became of each, and the failures below it, on stderr."""
    from rich.console import Console
    from rich.table import Table

    table = Table("input", "output", "", "frames", "lost", "seconds", box=None)
    for outcome in outcomes:
        done = outcome.progress
        table.add_row(
            str(outcome.job.source),
            str(outcome.job.target),
            outcome.status,
            str(done.frames_done) if done else "",
            str(done.frames_lost or "") if done else "",
            f"{outcome.seconds:.1f}" if done else "",
        )
    console = Console(stderr=True, soft_wrap=True)
    console.print(table)
    failures = [outcome for outcome in outcomes if outcome.error]
    for outcome in failures:
        complain(f"{outcome.job.source}: {outcome.error}")
    if failures:
        complain(f"{len(failures)} of {len(outcomes)} failed")


def time_left(seconds: float | None) -> str:
    """`3:07 left`, or nothing where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"
