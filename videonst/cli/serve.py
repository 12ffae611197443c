"""`videonst serve`: the page for a browser, and the HTTP API beside it."""

import functools
from importlib import util
from pathlib import Path
from typing import Annotated

import typer

from videonst.cli.console import Device, KeepColour, Steady, Strength
from videonst.cli.options import (
    Backend,
    CameraFormat,
    CameraSize,
    LiveModel,
    LiveStyle,
    Mirror,
    Rate,
    WorkingLines,
    open_capture,
    open_controls,
)
from videonst.errors import InputError, VideoNSTError


def command(
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="File, folder or address to show as well, again and again.")
    ] = None,
    camera: Annotated[
        str | None, typer.Option(metavar="N", help="Camera of this machine to show as well: number, or /dev/videoN.")
    ] = None,
    style: LiveStyle = None,
    strength: Strength = 1.0,
    keep_colour: KeepColour = False,
    steady: Steady = 0.75,
    model: LiveModel = "auto",
    lines: WorkingLines = "auto",
    device: Device = "auto",
    rate: Rate = 30.0,
    size: CameraSize = "1280x720",
    fourcc: CameraFormat = "MJPG",
    backend: Backend = "auto",
    mirror: Mirror = None,
    learnt: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for models with styles that are learnt from the page.")
    ] = None,
    vgg: Annotated[Path | None, typer.Option(help="VGG-19 weights to learn with; see `videonst learn`.")] = None,
    max_sessions: Annotated[int, typer.Option(min=0, help="Cameras of browsers at a time.")] = 4,
    idle: Annotated[float, typer.Option(min=1, help="Seconds after which a camera that sends nothing is let go.")] = 60,
    token: Annotated[
        str | None, typer.Option(help="Ask everybody for this token; made up where one is needed and none given.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Serve https. Cameras of other machines' browsers need it.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its key, unless it is in there.")] = None,
) -> None:
    """Serve a page: repaint the camera of a browser, or show a source of this machine to many."""
    missing = [name for name in ("starlette", "uvicorn", "websockets") if util.find_spec(name) is None]
    if missing:
        raise VideoNSTError(f"videonst serve needs {' and '.join(missing)}; run: pip install {' '.join(missing)}")
    from videonst.live.painter import Engines
    from videonst.web.access import Access
    from videonst.web.app import ServeSettings, create_app
    from videonst.web.server import PageServer
    from videonst.web.workshop import LearnOptions

    access = Access.to(host, token)
    engines = Engines(model, device)
    controls = functools.partial(
        open_controls,
        engines, style=style, strength=strength, keep_colour=keep_colour, steady=steady, model=model, lines=lines,
    )  # fmt: skip
    controls()
    capture = None
    if source is not None and camera is not None:
        raise InputError("both a recording and a camera; give one of --source and --camera")
    if source is not None or camera is not None:
        capture = functools.partial(
            open_capture,
            camera=camera or "", size=size, rate=rate, fourcc=fourcc, backend=backend,
            source=source, loop=source is not None, mirror=mirror,
        )  # fmt: skip
        with capture().source:  # what cannot be opened is refused here, not when the first viewer comes
            pass
    settings = ServeSettings(
        engines=engines,
        new_controls=controls,
        open_capture=capture,
        source_name=f"camera {camera}" if source is None else Path(source).name,
        max_sessions=max_sessions,
        idle_seconds=idle,
        access=access,
        learning=LearnOptions(folder=learnt, arguments=() if vgg is None else ("--vgg", str(vgg))),
    )
    server = PageServer(create_app(settings), host, port, certificate=tls_certificate, key=tls_key)
    typer.echo(f"{server.link(access.token)}  (Ctrl-C ends it)", err=True)
    server.run()
