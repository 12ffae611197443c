"""`videonst live`: the camera, painted, in a window."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videonst.cli.console import Device, KeepColour, Steady, Strength
from videonst.cli.options import (
    Backend,
    CameraFormat,
    CameraName,
    CameraSize,
    LiveModel,
    LiveStyle,
    Loop,
    Mirror,
    Rate,
    Recording,
    WorkingLines,
    open_capture,
    open_controls,
    open_folder,
)
from videonst.errors import InputError

if TYPE_CHECKING:
    from videonst.live.capture import Capture


def command(
    style: LiveStyle = None,
    strength: Strength = 1.0,
    keep_colour: KeepColour = False,
    steady: Steady = 0.75,
    model: LiveModel = "auto",
    lines: WorkingLines = "auto",
    device: Device = "auto",
    rate: Rate = 30.0,
    camera: CameraName = "0",
    size: CameraSize = "1280x720",
    fourcc: CameraFormat = "MJPG",
    backend: Backend = "auto",
    source: Recording = None,
    loop: Loop = False,
    mirror: Mirror = None,
    list_cameras: Annotated[bool, typer.Option("--list-cameras", help="List the cameras and stop.")] = False,
    full_screen: Annotated[bool, typer.Option("--full-screen", "-f", help="Begin in full screen.")] = False,
    window: Annotated[bool, typer.Option("--window/--no-window", help="Show a window.")] = True,
    virtual_camera: Annotated[
        bool, typer.Option("--virtual-camera", help="Be a camera for other programs (extra [camera]).")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="TARGET", help="Send to - (standard output), udp://, tcp://, srt://, rtmp://."
        ),
    ] = None,
    out_format: Annotated[str, typer.Option("--format", help="For --out -: mpegts, or raw RGB pixels.")] = "mpegts",
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="Record to this file from the start.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the keys s and r put snapshots and recordings.")] = Path(),
    seconds: Annotated[float | None, typer.Option("--seconds", min=0, help="Stop after so long.")] = None,
) -> None:
    """Repaint what the camera sees, now. Keys: h shows them all, q quits."""
    if list_cameras:
        _list_cameras()
        return
    if not (window or virtual_camera or out or record):
        raise InputError("nothing would be shown or kept; add --record, --out or --virtual-camera to --no-window")
    from videonst.live.controls import AUTO
    from videonst.live.painter import Engines, Painter

    folder = open_folder(folder)
    engines = Engines(model, device)
    controls = open_controls(
        engines, style=style, strength=strength, keep_colour=keep_colour, steady=steady, model=model, lines=lines
    )
    first = engines.models[-1] if controls.read().model == AUTO else controls.read().model
    with contextlib.ExitStack() as stack:
        stack.enter_context(engines.loading(first))
        screen = None
        if window:
            from videonst.live import view
            from videonst.live.window import Window  # before PyAV, see there

            screen = stack.enter_context(Window(controls, (640, 360), full_screen=full_screen))
            screen.show(view.waiting((640, 360), "opening the camera" if source is None else f"opening {source}"))
            screen.key()
        capture = open_capture(
            camera=camera, size=size, rate=rate, fourcc=fourcc, backend=backend, source=source, loop=loop, mirror=mirror
        )
        typer.echo(_describe(capture), err=True)
        from videonst.live.outlet import Outlet
        from videonst.live.run import LiveFilter

        shown = capture.source.info.width, capture.source.info.height
        outlets = []
        if out:
            from videonst.live.broadcast import open_broadcast

            outlets.append(stack.enter_context(Outlet(open_broadcast(out, shown, rate, out_format), lasting=False)))
        if virtual_camera:
            from videonst.live.virtual_camera import VirtualCameraSink

            device_sink = VirtualCameraSink(shown, rate)
            outlets.append(stack.enter_context(Outlet(device_sink, lasting=False, waiting=1)))
            typer.echo(f"virtual camera: {device_sink.device}", err=True)
        live = LiveFilter(
            stack.enter_context(capture),
            Painter(engines, controls, rate),
            controls,
            window=screen,
            outlets=outlets,
            folder=folder,
            notice=lambda line: typer.echo(line, err=True),
        )
        live.run(seconds, record=record, status=_print_status if sys.stderr.isatty() and not window else None)
        typer.echo(f"{live.painted} frames; {live.status()}", err=True)


def _describe(capture: "Capture") -> str:
    from videonst.sources.camera import CameraSource

    source = capture.source
    if isinstance(source, CameraSource):
        return f"camera: {source.report}"
    rate = f" at {float(source.info.average_rate):.4g} fps" if source.info.average_rate else ""
    return f"source: {source.info.width}x{source.info.height}{rate}"


def _print_status(line: str) -> None:
    typer.echo(f"\r\033[K{line}", nl=False, err=True)


def _list_cameras() -> None:
    from videonst.sources.camera import list_cameras

    found = list_cameras()
    for camera in found:
        typer.echo(f"{camera.id}  {camera.name}".rstrip())
    if not found:
        raise InputError("no camera was found; plug one in, or use --source FILE in its place")
