"""`videonst serve`: the page for a browser, and the HTTP API beside it."""

from importlib import util
from pathlib import Path
from typing import Annotated

import typer

from videonst.cli.console import Device, KeepColour, Strength
from videonst.errors import InputError, VideoNSTError


def command(
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    source: Annotated[
        str | None, typer.Option(metavar="FILE", help="A video, folder or network address to show as well, looped.")
    ] = None,
    camera: Annotated[
        str | None, typer.Option(metavar="N", help="A camera of this machine to show as well: 0, 1, /dev/video2 …")
    ] = None,
    style: Annotated[str | None, typer.Option("--style", "-s", help="Where the sliders stand at first.")] = None,
    strength: Strength = 1.0,
    keep_colour: KeepColour = False,
    model: Annotated[
        str, typer.Option("--model", "-m", help="auto (as the machine allows), fast, tiny, full, or an .onnx file.")
    ] = "auto",
    device: Device = "auto",
    max_sessions: Annotated[int, typer.Option(help="Cameras of browsers at a time.")] = 4,
    idle: Annotated[
        float, typer.Option(help="Seconds without a frame after which a camera gives its place back.")
    ] = 60,
    token: Annotated[
        str | None, typer.Option(help="Ask everybody for this token; made up where one is needed and none given.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Serve https. Cameras of other machines' browsers need it.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Of the certificate, unless it is in there.")
    ] = None,
) -> None:
    """Serve the page: repaint the camera of a browser, or show a source of this machine to many."""
    missing = [name for name in ("starlette", "uvicorn", "websockets") if util.find_spec(name) is None]
    if missing:
        raise VideoNSTError(f"videonst serve needs {' and '.join(missing)}; run: pip install {' '.join(missing)}")
    from videonst.live.painter import Engines
    from videonst.styles import StyleMix
    from videonst.web.access import Access
    from videonst.web.app import ServeSettings, create_app
    from videonst.web.server import PageServer
    from videonst.web.stage import capture_from

    if max_sessions < 0 or idle <= 0:
        raise InputError(f"--max-sessions {max_sessions}, --idle {idle:g}: expected 0 or more places, more than 0 s")
    engines = Engines(model, device)
    mix = StyleMix.parse(style or engines.style_names[0], strength=strength, keep_colour=keep_colour)
    settings = ServeSettings(
        engines=engines,
        model=model,
        mix=mix,
        open_capture=capture_from(source, camera),
        source_name=f"camera {camera}" if source is None else Path(source).name,
        max_sessions=max_sessions,
        idle_seconds=idle,
        access=Access.to(host, token),
    )
    server = PageServer(create_app(settings), host, port, certificate=tls_certificate, key=tls_key)
    typer.echo(f"{server.link(settings.access.token)}  (Ctrl-C ends it)", err=True)
    server.run()
