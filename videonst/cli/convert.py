"""`videonst convert`: one file in, one file out."""

from pathlib import Path
from typing import Annotated

import typer

from videonst.cli.console import STYLE_HELP, Device, KeepColour, Model, Overwrite, Steady, Strength, frame_progress


def command(
    source: Annotated[
        str,
        typer.Argument(metavar="IN", help="Video, picture, folder or pattern (%05d.png) of pictures, address, or -."),
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
    flow: Annotated[str, typer.Option(help="How motion is found: ultrafast, fast or medium.")] = "medium",
    model: Model = "fast",
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="onnx, or none: frames pass untouched, without a style.")] = "onnx",
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
        str | None, typer.Option(help="Speed; of h264: ultrafast … veryslow, veryfast (default).")
    ] = None,
    encoder_options: Annotated[
        list[str] | None, typer.Option("-e", metavar="KEY=VALUE", help="Option of FFmpeg's encoder; repeatable.")
    ] = None,
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what an interrupted run has finished.")] = False,
    rate: Annotated[str | None, typer.Option(help="Frames per second of numbered pictures; default 25.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop where the input is damaged.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for a network address; default 10.")] = None,
    stream_format: Annotated[
        str, typer.Option("--format", help="For OUT = -: matroska, webm, mpegts, nut or (fragmented) mp4.")
    ] = "matroska",
) -> None:
    """Repaint a video or picture file; timing, sound, subtitles and metadata stay."""
    from videonst.api import convert, load
    from videonst.sinks.codecs import parse_options

    stylizer = load(model, device=device, engine=engine)
    with frame_progress(Path(source).name) as progress:
        done = convert(
            source,
            target,
            style,
            strength=strength,
            keep_colour=keep_colour,
            steady=steady,
            flow=flow,
            model=stylizer,
            hdr=hdr,
            start=start,
            end=end,
            duration=duration,
            drop=drop or (),
            codec=codec,
            crf=crf,
            preset=preset,
            encoder_options=parse_options(encoder_options or ()),
            overwrite=overwrite,
            resume=resume,
            rate=rate,
            strict=strict,
            timeout=timeout,
            stream_format=stream_format,
            progress=progress,
        )
    used = stylizer.description
    rate = f"{done.frames_done} frames, {done.frames_per_second:.1f} fps"
    typer.echo(f"{target}: {rate}, {used.name} ({used.precision}) on {used.device}", err=True)
