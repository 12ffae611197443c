"""Options of the verbs that paint live, and what they open."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videonst.errors import InputError

if TYPE_CHECKING:
    from videonst.live.capture import Capture
    from videonst.live.controls import Controls
    from videonst.live.painter import Engines
    from videonst.sources.camera import CameraSource

LiveStyle = Annotated[
    str | None,
    typer.Option("--style", "-s", help="Mixture to begin with: NAME or NAME:SHARE,NAME:SHARE; default the first."),
]
LiveModel = Annotated[
    str, typer.Option("--model", "-m", help="auto (what keeps up), tiny, fast, full, or the path of an .onnx file.")
]
WorkingLines = Annotated[
    str, typer.Option("--lines", metavar="N", help="Working size, shorter side in pixels; auto: what keeps up.")
]
Rate = Annotated[float, typer.Option("--fps", min=1, max=240, help="Frames a second to hold, and to ask of a camera.")]
CameraName = Annotated[str, typer.Option("--camera", metavar="N", help="Camera number, or /dev/videoN.")]
CameraSize = Annotated[str, typer.Option("--size", metavar="WxH", help="Size to ask of the camera.")]
CameraFormat = Annotated[
    str, typer.Option("--fourcc", metavar="CODE", help="Pixel format to ask of the camera; '' leaves it alone.")
]
Backend = Annotated[str, typer.Option(help="Way to the camera: auto, v4l2, msmf, dshow, avfoundation, gstreamer.")]
Recording = Annotated[
    str | None,
    typer.Option("--source", metavar="SOURCE", help="File, folder of pictures or address in place of a camera."),
]
Loop = Annotated[bool, typer.Option("--loop", help="Start SOURCE again at its end.")]
Mirror = Annotated[
    bool | None, typer.Option("--mirror/--no-mirror", help="Exchange left and right; default: a camera yes, SOURCE no.")
]


def open_capture(
    *,
    camera: str,
    size: str,
    rate: float,
    fourcc: str,
    backend: str,
    source: str | None,
    loop: bool,
    mirror: bool | None,
) -> "Capture":
    """What the options name, not started yet.

    Raises:
        InputError: it cannot be opened, or an option cannot be read.
    """
    from videonst.live.capture import Capture
    from videonst.sources.live import open_recording

    if source is not None:
        return Capture(open_recording(source, loop=loop), mirror=bool(mirror))
    if loop:
        raise InputError("--loop repeats a recording; name one with --source")
    return Capture(_open_camera(camera, size, rate, fourcc, backend), mirror=mirror is not False)


def open_controls(
    engines: "Engines", *, style: str | None, strength: float, keep_colour: bool, steady: float, model: str, lines: str
) -> "Controls":
    """Controls that stand as the options say.

    Raises:
        InputError: an option cannot be read, or names what the models do not hold.
    """
    from videonst.live.controls import AUTO, Controls
    from videonst.styles import StyleMix

    mix = StyleMix.parse(style or engines.style_names[0], strength=strength, keep_colour=keep_colour)
    if lines != AUTO and not lines.isdigit():
        raise InputError(f"cannot read {lines!r} as a working size; expected auto or a number of lines")
    return Controls(
        engines.style_names,
        mix,
        steady=steady,
        model=model if model in engines.models and len(engines.models) > 1 else AUTO,
        lines=None if lines == AUTO else int(lines),
        models=engines.models,
    )


def open_folder(folder: Path) -> Path:
    """
    Raises:
        InputError: it is not there.
    """
    if not folder.is_dir():
        raise InputError(f"there is no directory {folder}; create it first")
    return folder


def _open_camera(camera: str, size: str, rate: float, fourcc: str, backend: str) -> "CameraSource":
    from videonst.sources.camera import CameraMode, CameraSource
    from videonst.sources.live import camera_id

    width, _, height = size.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise InputError(f"cannot read {size!r} as a size; expected WIDTHxHEIGHT, such as 1280x720")
    if len(fourcc) not in (0, 4):
        raise InputError(f"cannot read {fourcc!r} as a pixel format; expected four letters, such as MJPG or YUYV")
    return CameraSource(camera_id(camera), CameraMode(int(width), int(height), rate, fourcc), backend=backend)
