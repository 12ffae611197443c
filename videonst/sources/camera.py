"""A camera as a source of frames, and the list of cameras."""

import logging
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

# Read when OpenCV loads: Media Foundation's hardware transforms make cameras take up to two minutes to open
# (opencv issue 17687), and Video4Linux waits ten seconds for a camera that has gone.
os.environ.setdefault("OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS", "0")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")

import cv2

from videonst.errors import InputError
from videonst.frame import Frame, Pixels
from videonst.sources.arrival import RETRY_SECONDS, ArrivalClock
from videonst.sources.source import SourceInfo

_log = logging.getLogger(__name__)

BACKENDS = {
    "v4l2": cv2.CAP_V4L2,
    "msmf": cv2.CAP_MSMF,
    "dshow": cv2.CAP_DSHOW,
    "avfoundation": cv2.CAP_AVFOUNDATION,
    "gstreamer": cv2.CAP_GSTREAMER,
}
"""OpenCV's ways to a camera."""

AUTO_BACKEND = {"Linux": "v4l2", "Windows": "msmf", "Darwin": "avfoundation"}
"""By operating system."""

DEFAULT_SIZE = (1280, 720)
DEFAULT_RATE = 30.0
DEFAULT_FORMAT = "MJPG"
"""Over USB 2 uncompressed formats allow 5 to 10 frames a second at 720 lines."""

PROBED_CAMERAS = 6
"""Where the system does not list cameras, so many numbers are tried."""


class VideoCapture(Protocol):
    """The part of `cv2.VideoCapture` that is used."""

    def isOpened(self) -> bool: ...  # noqa: N802 - OpenCV's name
    def set(self, propId: int, value: float) -> bool: ...  # noqa: N803
    def get(self, propId: int) -> float: ...  # noqa: N803
    def read(self) -> tuple[bool, Any]: ...
    def release(self) -> None: ...


OpenCapture = Callable[[int | str, int], VideoCapture]
"""From number or path of a camera and OpenCV's number of a backend."""


@dataclass(frozen=True)
class CameraMode:
    """How a camera delivers.

    Attributes:
        width, height: pixels.
        rate: frames per second.
        format: FOURCC, such as "MJPG" or "YUYV"; empty where the backend does not say.
    """

    width: int = DEFAULT_SIZE[0]
    height: int = DEFAULT_SIZE[1]
    rate: float = DEFAULT_RATE
    format: str = DEFAULT_FORMAT

    def __str__(self) -> str:
        return f"{self.width}x{self.height}@{self.rate:g} {self.format}".rstrip()


class CameraSource:
    """A camera: every frame when it comes, in RGB.

    A camera that stops delivering is opened again and again until it is back; meanwhile nothing is yielded and
    `trouble` says so.

    Args:
        camera: number, or path of a device such as /dev/video2.
        asked: what to ask of it.
        backend: of `BACKENDS`; "auto" takes the system's own.
        open_capture: opens it; None takes `cv2.VideoCapture`.
        clock: seconds, monotonic.

    Attributes:
        asked: as given.
        granted: what the camera really does.
        trouble: one line while it does not deliver, else empty.

    Raises:
        InputError: no such camera or backend, or it delivers nothing.
    """

    def __init__(
        self,
        camera: int | str = 0,
        asked: CameraMode = CameraMode(),
        *,
        backend: str = "auto",
        open_capture: OpenCapture | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if backend != "auto" and backend not in BACKENDS:
            raise InputError(f"unknown camera backend {backend!r}; expected auto, {', '.join(BACKENDS)}")
        name = AUTO_BACKEND.get(platform.system()) if backend == "auto" else backend
        self._backend = BACKENDS[name] if name else cv2.CAP_ANY
        self._camera, self.asked = camera, asked
        self._open_capture = open_capture or _open_capture
        self._clock = clock
        self._stopping = threading.Event()
        self.trouble = ""
        self._capture, self._first = self._open()
        height, width = self._first.shape[:2]
        self.granted = self._read_back(width, height)
        rate = Fraction(self.granted.rate).limit_denominator(1001) if self.granted.rate > 0 else None
        self.info = SourceInfo(None, width, height, average_rate=rate)

    @property
    def report(self) -> str:
        """`asked 1280x720@30 MJPG, got 640x480@15 YUYV`."""
        return f"asked {self.asked}, got {self.granted}"

    def stop(self) -> None:
        """The iteration ends after the frame that is being read. From any thread."""
        self._stopping.set()

    def __iter__(self) -> Iterator[Frame]:
        arrivals = ArrivalClock(self._clock)
        pixels: Pixels | None = self._first
        while not self._stopping.is_set():
            if pixels is None:
                self._reconnect()
            else:
                yield arrivals.stamp(Frame(self._rgb(pixels)))
            pixels = None if self._stopping.is_set() else _read(self._capture)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._capture.release()

    def _open(self) -> tuple[VideoCapture, Pixels]:
        capture = self._open_capture(self._camera, self._backend)
        if not capture.isOpened():
            capture.release()
            raise InputError(f"cannot open camera {self._camera}; {self._hint()}")
        # The order that drivers need: the format decides which sizes there are, the size which rates.
        if self.asked.format:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self.asked.format))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self.asked.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self.asked.height)
        capture.set(cv2.CAP_PROP_FPS, self.asked.rate)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        first = _read(capture)
        if first is None:
            capture.release()
            raise InputError(f"camera {self._camera} delivers no picture; close other programs that use it")
        return capture, first

    def _read_back(self, width: int, height: int) -> CameraMode:
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        letters = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        return CameraMode(width, height, rate, letters if letters.isprintable() else "")

    def _reconnect(self) -> None:
        """Waits until the camera is back, or the source is stopped."""
        self._capture.release()
        self.trouble = f"camera {self._camera} stopped delivering; waiting for it to come back"
        _log.warning(self.trouble)
        while not self._stopping.wait(RETRY_SECONDS):
            try:
                self._capture, _ = self._open()
            except InputError:
                continue
            self.trouble = ""
            _log.warning("camera %s is back", self._camera)
            return

    def _rgb(self, pixels: Pixels) -> Pixels:
        size = self.info.width, self.info.height
        if pixels.shape[1::-1] != size:  # back from a pause in another mode
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]

    def _hint(self) -> str:
        known = ", ".join(str(camera.id) for camera in list_cameras(self._open_capture))
        return f"there are {known}" if known else "no camera was found; plug one in, or use --source FILE"


@dataclass(frozen=True)
class Camera:
    """
    Attributes:
        id: its number.
        name: as the system calls it; empty where it does not say.
    """

    id: int
    name: str


def list_cameras(
    open_capture: OpenCapture | None = None, devices: Path = Path("/sys/class/video4linux")
) -> list[Camera]:
    """The cameras of this machine. On Linux the kernel lists them; elsewhere the first numbers are tried.

    Args:
        open_capture: as for `CameraSource`.
        devices: where Linux describes its video devices.
    """
    if platform.system() == "Linux":
        nodes = [node for node in devices.glob("video*") if _text(node / "index") in ("", "0")]  # others are metadata
        found = [Camera(int(re.sub(r"\D", "", node.name)), _text(node / "name")) for node in nodes]
        return sorted(found, key=lambda camera: camera.id)
    backend = BACKENDS[AUTO_BACKEND[platform.system()]] if platform.system() in AUTO_BACKEND else cv2.CAP_ANY
    cameras = []
    for number in range(PROBED_CAMERAS):
        capture = (open_capture or _open_capture)(number, backend)
        if capture.isOpened():
            cameras.append(Camera(number, ""))
        capture.release()
    return cameras


def _open_capture(camera: int | str, backend: int) -> VideoCapture:
    """OpenCV's own, without its remarks on a camera that is not there."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(camera, backend)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _read(capture: VideoCapture) -> Pixels | None:
    """The next picture, BGR; None where none comes."""
    try:
        came, pixels = capture.read()
    except cv2.error:
        return None
    return pixels if came and pixels is not None and pixels.size else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
