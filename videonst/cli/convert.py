"""`videonst convert`: one file in, one file out; or many."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videonst.cli import optimise
from videonst.cli.console import (
    STYLE_HELP,
    Device,
    Flow,
    KeepColour,
    Model,
    Overwrite,
    Steady,
    Strength,
    frame_progress,
    is_given,
    many_progress,
    open_flow,
    print_summary,
)
from videonst.errors import InputError

if TYPE_CHECKING:
    from videonst.batch import Job
    from videonst.pipeline import PipelineProgress


def command(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="IN...",
            help="Video, picture, folder or pattern (%05d.png) of pictures, address, or -. Several of them, a "
            "folder of videos, wildcards or @list.txt: OUT is a folder.",
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT", help=".mp4 .mov .mkv .webm; .png .jpg .webp for a picture, %05d.png for many; or -."
        ),
    ],
    style: Annotated[str | None, typer.Option("--style", "-s", help=STYLE_HELP)] = None,
    strength: Strength = 1.0,
    keep_colour: KeepColour = False,
    steady: Steady = 0.75,
    flow: Flow = "medium",
    model: Model = "fast",
    device: Device = "auto",
    engine: Annotated[
        str,
        typer.Option(help="onnx; optimise: slow, any painting, best (docs/quality.md); none: frames pass untouched."),
    ] = "onnx",
    resize: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of the output: 1280x720, 720p (shorter side) or a factor.")
    ] = None,
    stroke_scale: Annotated[
        float, typer.Option(help="Size of the strokes: 2 paints at half the resolution, 4 times as fast.")
    ] = 1.0,
    hdr: Annotated[str, typer.Option(help="PQ and HLG: tonemap to SDR, or error.")] = "tonemap",
    start: Annotated[str | None, typer.Option(metavar="TIME", help="Begin here: seconds or [HH:]MM:SS.mmm.")] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="Stop here.")] = None,
    duration: Annotated[str | None, typer.Option(metavar="TIME", help="Stop this long after the start.")] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Leave out audio, subtitles, data, attachments or alpha; repeatable."),
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="h264, hevc, av1, vp9, prores, ffv1, or of a device, such as h264_nvenc.")
    ] = None,
    crf: Annotated[
        float | None, typer.Option(help="Quality, lower is better; of h264: 0 lossless, 18 (default), 51 worst.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Speed; of h264: ultrafast … veryslow, veryfast (default). With --engine optimise, of the painting: "
            "draft, good (default), best or gatys2016."
        ),
    ] = None,
    encoder_options: Annotated[
        list[str] | None, typer.Option("-e", metavar="KEY=VALUE", help="Option of FFmpeg's encoder; repeatable.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="Of an output among many: {stem}, {suffix}, {number}, {parent} are filled in.")
    ] = "{stem}{suffix}",
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave outputs alone that exist.")] = False,
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what an interrupted run has finished.")] = False,
    rate: Annotated[str | None, typer.Option(help="Frames per second of numbered pictures; default 25.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop where the input is damaged.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for a network address; default 10.")] = None,
    hwaccel: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Decode video files on cuda, videotoolbox …; see doctor.")
    ] = None,
    stream_format: Annotated[
        str, typer.Option("--format", help="For OUT = -: matroska, webm, mpegts, nut or (fragmented) mp4.")
    ] = "matroska",
    steps: optimise.Steps = None,
    content_weight: optimise.ContentWeight = None,
    style_weight: optimise.StyleWeight = None,
    seed: optimise.Seed = None,
    start_from: optimise.StartFrom = None,
    content_mask: optimise.ContentMask = None,
    style_mask: optimise.StyleMask = None,
    features: optimise.Features = None,
    vgg: optimise.Vgg = None,
    memory: optimise.Memory = None,
    paintings: optimise.Paintings = None,
    timelapse: optimise.Timelapse = None,
    preview: optimise.Preview = None,
    plot: optimise.Plot = None,
) -> None:
    """Repaint videos or pictures; timing, sound, subtitles and metadata stay. Exit code 1 if any of many failed."""
    from videonst.api import Stylizer, convert, load
    from videonst.batch import find_inputs, means_many, plan
    from videonst.sinks.codecs import parse_options
    from videonst.sinks.sink import PICTURE_SUFFIXES
    from videonst.sources.hardware import check_hardware
    from videonst.sources.source import is_pattern

    is_many = len(sources) > 1 or means_many(sources[0])
    if is_many and target == "-":
        raise typer.BadParameter("many inputs need a folder as OUT; standard output takes one")
    if is_many and (rate is not None or timeout is not None):
        raise typer.BadParameter("--rate and --timeout are for one sequence of pictures or one address")
    if hwaccel is not None:  # before any of many, and before the model is loaded
        check_hardware(hwaccel, strict=strict)
    jobs = plan(find_inputs(sources), Path(target), name) if is_many else []
    if not is_many and skip_existing and Path(target).exists():
        typer.echo(f"{target}: exists, skipped", err=True)
        return
    single: dict[str, Any] = {"rate": rate, "timeout": timeout, "stream_format": stream_format}
    own: dict[str, Any] = {
        "steps": steps, "content_weight": content_weight, "style_weight": style_weight, "seed": seed,
        "start_from": start_from, "content_mask": content_mask, "style_mask": style_mask, "features": features,
        "vgg": vgg, "memory": memory, "paintings": paintings, "timelapse": timelapse, "preview": preview, "plot": plot,
    }  # fmt: skip
    options: dict[str, Any] = {
        "strength": strength,
        "keep_colour": keep_colour,
        "steady": steady,
        "flow": open_flow(flow),
        "hdr": hdr,
        "resize": resize,
        "stroke_scale": stroke_scale,
        "start": start,
        "end": end,
        "duration": duration,
        "drop": drop or (),
        "codec": codec,
        "crf": crf,
        "preset": preset,
        "encoder_options": parse_options(encoder_options or ()),
        "overwrite": overwrite,
        "resume": resume,
        "strict": strict,
        "hwaccel": hwaccel,
    }
    if engine == "optimise":
        if is_given(context, "steady"):
            raise InputError("--steady is for the fast engines; --engine optimise holds film steady by itself")
        is_picture = not is_many and Path(target).suffix.lower() in PICTURE_SUFFIXES and not is_pattern(Path(target))
        with optimise.open_optimiser(
            style, preset, is_picture=is_picture, is_many=is_many, files=(Path(sources[0]), Path(target)),
            overwrite=overwrite, options=own, model=model, device=device, stroke_scale=stroke_scale,
        ) as (optimiser, progress, finish):  # fmt: skip
            options |= {"model": Stylizer(optimiser), "preset": None, "stroke_scale": 1.0}
            if is_many:
                _convert_many(jobs, style, skip_existing, options, lambda: optimiser.is_interrupted)
                return
            done = convert(sources[0], target, style, **options, **single, progress=progress)
            finish(Path(target))
        if optimiser.is_interrupted:
            _end_early(target)
    else:
        optimise.refuse_options(own)
        options |= {"model": load(model, device=device, engine=engine)}
        if is_many:
            _convert_many(jobs, style, skip_existing, options)
            return
        with frame_progress(Path(sources[0]).name) as progress:
            done = convert(sources[0], target, style, **options, **single, progress=progress)
    used = options["model"].description
    summary = f"{done.frames_done} frames, {done.frames_per_second:.1f} fps"
    lost = f", {done.frames_lost} lost of a damaged input" if done.frames_lost else ""
    typer.echo(f"{target}: {summary}, {used.name} ({used.precision}) on {used.device}{lost}", err=True)


def _convert_many(
    jobs: "Sequence[Job]",
    style: str | None,
    skip_existing: bool,
    options: dict[str, Any],
    is_interrupted: Callable[[], bool] = lambda: False,
) -> None:
    from videonst.batch import convert_many

    outcomes = []
    with many_progress(len(jobs)) as (begin, report):

        def begin_one(job: "Job") -> "Callable[[PipelineProgress], None]":
            update = begin(job)  # raises a Ctrl-C that was lost; one that the engine has answered is no error
            return lambda progress: None if is_interrupted() else update(progress)

        for outcome in convert_many(jobs, style, skip_existing=skip_existing, begin=begin_one, **options):
            outcomes.append(report(outcome))
            if is_interrupted():
                break
    print_summary(outcomes)
    if is_interrupted():
        _end_early(outcomes[-1].job.target)
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def _end_early(target: str | Path) -> None:
    typer.echo(f"{target}: stopped early, the best so far is saved", err=True)
    raise KeyboardInterrupt
