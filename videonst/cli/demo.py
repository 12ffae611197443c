"""`videonst demo`: the main job on the clip that the package ships."""

from pathlib import Path
from typing import Annotated

import typer

from videonst.cli.console import Device, Model, Steady, Strength, frame_progress


def command(
    target: Annotated[Path, typer.Argument(metavar="[OUT]", help="Where the clip goes.")] = Path("videonst-demo.mp4"),
    style: Annotated[str | None, typer.Option("--style", "-s", help="One mixture; default: glide through six.")] = None,
    strength: Strength = 1.0,
    steady: Steady = 0.75,
    model: Model = "fast",
    device: Device = "auto",
) -> None:
    """Repaint the sample clip, gliding from style to style. An earlier result is replaced."""
    from videonst.demo import paint_demo

    with frame_progress("demo") as progress:
        done = paint_demo(
            target, style, strength=strength, steady=steady, model=model, device=device, progress=progress
        )
    typer.echo(f"{done.frames_done} frames, {done.frames_per_second:.1f} fps; watch {target.resolve()}")
