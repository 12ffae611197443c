"""`videonst bench`: measurements."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from videonst.cli.console import Device, Flow, Model, is_given, open_flow
from videonst.errors import InputError

app = typer.Typer(help="Measure: speed, stability.", no_args_is_help=True)

MEASURED = ("tiny", "tiny.int8", "fast", "fast.int8")
SIZES = ("640x360", "1280x720")

WIDEST = 1000
"""Columns of a printed table at most."""

_FOR_AN_ENGINE = ("model", "device", "flow", "steady", "hold")
"""Options of `stability` that have no meaning for what another program painted."""

STYLES = ("starry_night", "great_wave", "the_scream", "udnie")


@app.command()
def speed(
    context: typer.Context,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Name (tiny, tiny.int8 …) or .onnx file; repeatable.")
    ] = None,
    size: Annotated[list[str] | None, typer.Option(metavar="WxH", help="Of the frames; repeatable.")] = None,
    device: Device = "auto",
    flow: Annotated[str, typer.Option(help="How motion is found: ultrafast, fast or medium.")] = "medium",
    hwaccel: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="What decodes, as for convert; default: software.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each stage.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.01, help="Of one turn of a stage.")] = 1.5,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Paint steadied frames from CUDA graphs (--device cuda).")
    ] = False,
    start_up: Annotated[bool, typer.Option("--start-up", help="Measure the start of processes too.")] = False,
    json: Annotated[Path | None, typer.Option(help="Report to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Plot to write (.png): time of the stages over sizes.")] = None,
    show: Annotated[Path | None, typer.Option(metavar="REPORT", help="Print (and plot) a report, and stop.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="OLD NEW", help="Times of a report over another's, and stop.")
    ] = None,
) -> None:
    """Time of every stage alone, of the whole way, and the floor; see docs/benchmarks/speed.md."""
    from videonst.bench.json_values import check_json, write_json
    from videonst.bench.machine import describe_machine
    from videonst.bench.speed import measure_speed
    from videonst.bench.speed_report import (
        check_plot,
        comparison,
        draw_plot,
        make_report,
        read_report,
        tables,
    )
    from videonst.bench.start_up import measure_start_up

    reading = "compare" if compare else "show" if show else ""
    allowed = {"compare": ("compare",), "show": ("show", "plot")}.get(reading, context.params)
    idle = [name.replace("_", "-") for name in context.params if is_given(context, name) and name not in allowed]
    if idle:
        raise InputError(f"--{reading} measures nothing; leave out --{' and --'.join(idle)}")
    if compare:
        typer.echo(comparison(*map(read_report, compare)))
        return
    if plot:
        check_plot(plot)
    if json:
        check_json(json)
    if show:
        report = read_report(show)
    else:
        sizes = [_size(text) for text in size or SIZES]
        on_cpu = device in ("auto", "cpu")
        machine, rows = describe_machine(), []
        for row in measure_speed(
            model or [name for name in MEASURED if on_cpu or not name.endswith(".int8")],
            sizes,
            device=device,
            rounds=rounds,
            round_seconds=seconds,
            flow=flow,
            hwaccel=hwaccel,
            cuda_graphs=cuda_graphs,
            report=lambda line: typer.echo(line, err=True),
        ):
            rows.append(row)
            if json:  # what is measured is not lost where a later one fails
                write_json(json, make_report(rows, machine))
        report = make_report(rows, machine, measure_start_up() if start_up else None)
    if json:
        write_json(json, report)
    typer.echo(tables(report))
    if plot:
        draw_plot(plot, report)


@app.command()
def stability(
    context: typer.Context,
    model: Model = "fast",
    device: Device = "auto",
    style: Annotated[list[str] | None, typer.Option("--style", "-s", help="Repeatable; default: four.")] = None,
    steady: Annotated[list[float] | None, typer.Option(help="Positions of the knob, repeatable.")] = None,
    flow: Flow = "medium",
    frames: Annotated[int, typer.Option(min=12, help="Of the synthetic scene and of clips.")] = 52,
    sintel: Annotated[Path | None, typer.Option(help="Folder of Sintel excerpts with ground-truth flow.")] = None,
    clip: Annotated[list[Path] | None, typer.Option(help="Real clip; repeatable.")] = None,
    hold: Annotated[
        int, typer.Option(min=0, help="Hold a still photograph for so many frames, to see whether it drifts; 0: not.")
    ] = 0,
    vgg: Annotated[Path | None, typer.Option(help="VGG-19 weights, for content and style loss.")] = None,
    paintings: Annotated[Path | None, typer.Option(help="Folder of the paintings, for the style loss.")] = None,
    painted: Annotated[Path | None, typer.Option(help="Measure what another program painted instead.")] = None,
    plain: Annotated[Path | None, typer.Option(help="The same without its stabilisation.")] = None,
    inputs: Annotated[Path | None, typer.Option(help="Write the scenes here for other programs, and stop.")] = None,
    json: Annotated[Path | None, typer.Option(help="Report to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Plot to write (.png): error against style loss.")] = None,
) -> None:
    """Warping error, flicker, drift and sharpness over the knob, on exact flow; see docs/steady.md."""
    from videonst.bench.scenes import clip_scene, sintel_scenes, still_scene, synthetic_scene
    from videonst.bench.speed_report import check_plot
    from videonst.bench.stability import (
        INPUT,
        draw_plot,
        measure_engine,
        measure_folder,
        measure_hold,
        measure_input,
        summarise,
        write_inputs,
        write_report,
    )

    if (vgg is None) != (paintings is None):
        raise InputError("the losses need both --vgg and --paintings")
    if plain and not painted:
        raise InputError("--plain is the unsteadied version of what --painted names; give both")
    idle = [name for name in _FOR_AN_ENGINE if is_given(context, name)]
    if painted and idle:
        raise InputError(f"--{' and --'.join(idle)}: for an engine; what --painted names is painted already")
    if painted and ((vgg is not None) != (style is not None and len(style) == 1)):
        raise InputError("for --painted, --style names the one painting that --vgg and --paintings compare with")
    if inputs and (painted or json or plot):
        raise InputError("--inputs writes the scenes and stops; measure in a run of its own")
    if plot:
        check_plot(plot)
    if plot and painted and not (plain or vgg):
        raise InputError("the plot needs a price beside the error: add --plain, or --vgg and --paintings")
    scenes = [synthetic_scene(frames), still_scene(), *(sintel_scenes(sintel) if sintel else [])]
    scenes += [clip_scene(path, frames) for path in clip or []]
    if len({scene.name for scene in scenes}) < len(scenes):
        raise InputError(f"two scenes have one name: {', '.join(scene.name for scene in scenes)}; rename the clip")
    if inputs:
        write_inputs(inputs, scenes)
        return
    rows = measure_input(scenes)
    about: dict[str, object] = {"scenes": [scene.name for scene in scenes]}
    if painted:
        losses = _losses(vgg, paintings)
        rows += measure_folder(painted, scenes, plain, losses["losses"](style[0]) if losses and style else None)
        about |= {"painted": str(painted), "plain": plain and str(plain)}
    else:
        from videonst.api import load

        stylizer = load(model, device=device)
        styles = style or [name for name in STYLES if name in stylizer.styles] or stylizer.styles[:1]
        used = stylizer.description
        about |= {
            "model": used.name,
            "precision": used.precision,
            "device": used.device,
            "styles": styles,
            "flow": flow,
        }
        losses = _losses(vgg, paintings)
        knob = steady or [0.25, 0.5, 0.75, 1.0]
        motion = open_flow(flow)
        if json:
            write_report(json, rows, about)
        for row in measure_engine(stylizer.engine, scenes, styles, knob, flow=motion, **losses):
            typer.echo(f"{row.style} {row.scene} at {row.steady:g}", err=True)
            rows.append(row)
            if json:  # what is measured is not lost where a later one fails
                write_report(json, rows, about)
        for name, position in ((name, position) for name in styles for position in knob if hold):
            typer.echo(f"{name} hold at {position:g}", err=True)
            rows.append(measure_hold(stylizer.engine, name, position, hold, flow=motion))
    if json:
        write_report(json, rows, about)
    _print([asdict(row) | row.errors_by_name() for row in rows if row.style == INPUT], "scene")
    _print(summarise(rows), "painted" if painted else "steady")
    if plot:
        draw_plot(plot, rows)


def _print(rows: Sequence[dict[str, Any]], first: str) -> None:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    wanted = [
        key
        for key in {key: None for row in rows for key in row}
        if key != first and any(isinstance(row.get(key), float) for row in rows)
    ]
    table = Table(first, *(str(row[first]) for row in rows), box=None)
    for key in wanted:
        table.add_row(key, *(f"{v:.4g}" if isinstance(v := row.get(key), float) else "" for row in rows))
    console = Console()
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    Console(width=max(console.width, needed)).print(table)  # rich would cut the numbers short


def _losses(vgg: Path | None, paintings: Path | None) -> dict[str, Any]:
    if vgg is None or paintings is None:
        return {}
    try:
        from videonst.bench.losses import perceptual_losses
    except ModuleNotFoundError as error:
        raise InputError(f"the losses need {error.name}; run: pip install 'videonst[train]'") from error
    return {"losses": perceptual_losses(vgg, paintings)}


def _size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise InputError(f"cannot read {text!r} as a size to measure; expected WIDTHxHEIGHT, such as 640x360")
    return int(width), int(height)
