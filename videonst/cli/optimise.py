"""`videonst convert --engine optimise`: its options, and the engine that they describe."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videonst.cli.console import time_left
from videonst.errors import InputError

if TYPE_CHECKING:
    from videonst.optimise import OptimiseEngine, Preset, Progress
    from videonst.pipeline import PipelineProgress

PANEL = "With --engine optimise"


def _option(*names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=PANEL)


Steps = Annotated[int | None, _option(help="Optimise: steps of a first frame; the preset's by default.")]
ContentWeight = Annotated[float | None, _option(help="Optimise: instead of the preset's.")]
StyleWeight = Annotated[float | None, _option(help="Optimise: instead of the preset's.")]
Seed = Annotated[int | None, _option(help="Optimise: of a start from noise.")]
StartFrom = Annotated[str | None, _option(help="Optimise: content, noise, network, or auto, the best of these.")]
ContentMask = Annotated[Path | None, _option(help="Optimise: picture of flat colours, a region each.", metavar="FILE")]
StyleMask = Annotated[
    list[Path] | None,
    _option(help="Optimise: the same for each painting; equal colours mean each other.", metavar="FILE"),
]
Features = Annotated[str | None, _option(help="Optimise: perceptual network, auto, vgg19 or compact.")]
Vgg = Annotated[Path | None, _option(help="Optimise: file of VGG-19 weights.", metavar="FILE")]
Memory = Annotated[str | None, _option(help="Optimise: limit, such as 4GB; default: what the machine has.")]
Paintings = Annotated[
    Path | None,
    _option(
        help="Optimise: folder of paintings, for styles by name.",
        metavar="DIR",
    ),
]
Timelapse = Annotated[Path | None, _option(help="Optimise: film of a picture's steps to write.", metavar="FILE")]
Preview = Annotated[Path | None, _option(help="Optimise: picture to refresh while it grows.", metavar="FILE")]
Plot = Annotated[Path | None, _option(help="Optimise: plot of the losses to write.", metavar="FILE")]

DEFAULT_PRESET = "good"

LINE_SECONDS = 30.0
"""Between two lines of progress where stderr is no terminal."""


def refuse_options(given: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: options of the optimise engine for another one.
    """
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, [])]
    if named:
        raise InputError(f"{', '.join(named)}: only with --engine optimise")


@contextmanager
def open_optimiser(
    style: str | None,
    preset: str | None,
    *,
    is_picture: bool,
    is_many: bool,
    files: Sequence[Path],
    overwrite: bool,
    options: Mapping[str, Any],
    **engine: Any,
) -> "Iterator[tuple[OptimiseEngine, Callable[[PipelineProgress], None], Callable[[Path], None]]]":
    """The engine, a callback for the pipeline's progress, and what to call with the output when all is done.

    Args:
        style, preset: as typed.
        is_picture: a single picture is painted.
        is_many: several inputs are.
        files: input and output, where they are one each.
        options: as typed, by name.
        engine: further arguments of `OptimiseEngine`.

    Raises:
        InputError: options that cannot be used.
    """
    if style is None:
        raise InputError("no painting was given; name a picture, such as --style painting.jpg")
    try:
        from videonst.optimise import OptimiseEngine
        from videonst.optimise.memory import parse_bytes
        from videonst.optimise.paintings import find_paintings
        from videonst.optimise.watch import Recorder, check_plot, draw_losses, open_timelapse
        from videonst.perceptual import open_features
        from videonst.styles import StyleMix
    except ModuleNotFoundError as error:
        raise InputError(f"--engine optimise needs {error.name}; run: pip install 'videonst[train]'") from error
    wanted = dict(options)
    plan, count = _preset(preset, wanted), wanted.pop("steps")
    timelapse, preview, plot = (wanted.pop(name) for name in ("timelapse", "preview", "plot"))
    if timelapse and not is_picture:
        raise InputError("--timelapse shows how a single picture grows; leave it out for film and for many inputs")
    if is_many and (preview or plot):
        raise InputError("--preview and --plot are for one input")
    if plot:
        check_plot(plot)
    masks = _masks(wanted.pop("content_mask"), wanted.pop("style_mask"))
    memory = wanted.pop("memory")
    mix, folder = StyleMix.parse(style), wanted.pop("paintings") or default_paintings()
    used = [*files, *find_paintings(mix, folder).values(), *((masks[0], *masks[1]) if masks else ())]
    for path in filter(None, (timelapse, preview, plot)):
        if path.resolve() in [other.resolve() for other in used]:
            raise InputError(f"{path} is read or written otherwise here; name another file")
        used.append(path)
    features = open_features(wanted.pop("features") or "auto", wanted.pop("vgg"))
    plan = plan.on(features.name) if count is None else plan.with_steps(count)
    bars = _bars("" if is_many else files[0].name, is_film=not (is_picture or is_many))
    with open_timelapse(timelapse, overwrite=overwrite) as sink, bars as (steps, frames):
        recorder = Recorder(preview, sink, keep_losses=plot is not None)

        def watch(progress: "Progress") -> None:
            recorder(progress)
            steps(progress)

        optimiser = OptimiseEngine(
            mix,
            plan,
            features=features,
            masks=masks,
            memory=parse_bytes(memory) if memory else None,
            paintings=folder,
            start=wanted.pop("start_from"),
            seed=wanted.pop("seed") or 0,
            watch=watch,
            **engine,
        )
        typer.echo(f"{optimiser.description.name}, {optimiser.description.precision}", err=True)

        def end(target: Path) -> None:
            if sink:
                from videonst.sources.image import read_picture

                recorder.end(read_picture(target).pixels)

        try:
            yield optimiser, frames, end
        finally:  # also of what was interrupted
            if plot and recorder.losses:
                draw_losses(plot, recorder.losses)


def default_paintings() -> Path | None:
    """The folder that VIDEONST_DATA names, where it is set and has one."""
    import os

    folder = Path(os.environ["VIDEONST_DATA"], "styles") if "VIDEONST_DATA" in os.environ else None
    return folder if folder and folder.is_dir() else None


def _preset(name: str | None, wanted: dict[str, Any]) -> "Preset":
    from videonst.optimise.presets import PRESETS, find_preset

    if name is not None and name not in PRESETS:
        raise InputError(
            f"with --engine optimise, --preset is one of {', '.join(PRESETS)}, not {name!r}; the encoder's goes as "
            f"-e preset={name}"
        )
    plan = find_preset(name or DEFAULT_PRESET)
    weights = {key: value for key in ("content_weight", "style_weight") if (value := wanted.pop(key)) is not None}
    for key, value in weights.items():
        if not 0 <= value < float("inf"):
            raise InputError(f"--{key.replace('_', '-')} is {value:g}; expected 0 or more")
    return replace(plan, **weights)


def _masks(content: Path | None, style: list[Path] | None) -> tuple[Path, list[Path]] | None:
    if content is None and not style:
        return None
    if content is None or not style:
        raise InputError("regions need both --content-mask and --style-mask, one for each painting")
    return content, style


@contextmanager
def _bars(
    label: str, *, is_film: bool
) -> "Iterator[tuple[Callable[[Progress], None], Callable[[PipelineProgress], None]]]":
    """Progress on stderr: a bar for the steps, one for the frames of a film; without a terminal a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    bars = Bars(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    told = time.monotonic()
    done = 0
    with bars:
        film = bars.add_task(label, total=None, state="") if is_film else None
        steps = bars.add_task("steps" if is_film else label or "steps", total=None, state="")

        def stepped(progress: "Progress") -> None:
            nonlocal told
            losses = progress.losses
            state = f"{progress.width}x{progress.height}, loss {losses.total:.4f} (content {losses.content:.4f}, style "
            state += f"{losses.style:.4f}" + (f", temporal {losses.temporal:.5f})" if losses.temporal else ")")
            state += f", {left}" if (left := time_left(progress.seconds_left)) else ""
            bars.update(steps, completed=progress.step, total=progress.steps, state=state)
            if bars.disable and time.monotonic() - told >= LINE_SECONDS:
                told = time.monotonic()
                begun = (f"{label}: " if label else "") + (f"frame {done + 1}, " if is_film else "")
                typer.echo(f"{begun}step {progress.step}/{progress.steps}, {state}", err=True)

        def framed(progress: "PipelineProgress") -> None:
            nonlocal done
            done = progress.frames_done
            if film is not None:
                state = f"{60 * progress.frames_per_second:.2f} frames/min, {time_left(progress.seconds_left)}"
                bars.update(film, completed=done, total=progress.frames_total, state=state)

        yield stepped, framed
