"""A camera that other programs can choose: Zoom, Teams, browsers, OBS."""

import platform
from types import TracebackType
from typing import Any, Self

import cv2

from videonst.errors import InputError
from videonst.frame import Frame

INSTALL = {
    "Linux": "run: sudo apt-get install v4l2loopback-dkms && "
    "sudo modprobe v4l2loopback exclusive_caps=1 card_label=videonst",
    "Darwin": "install OBS from https://obsproject.com, start its virtual camera once and stop it again",
    "Windows": "install OBS from https://obsproject.com, which brings a virtual camera",
}
"""What makes a virtual camera work, by operating system."""

PACKAGE = "run: pip install 'videonst[camera]'"


class VirtualCameraSink:
    """Shows frames on a virtual camera, each until the next.

    Args:
        size: of the frames, (width, height), pixels; others are scaled.
        rate: frames per second told to those who look.
        device: such as /dev/video9; None takes the first that works.

    Raises:
        InputError: pyvirtualcam is missing, or there is no virtual camera on this machine.
    """

    def __init__(self, size: tuple[int, int], rate: float, device: str | None = None) -> None:
        try:
            import pyvirtualcam
        except ImportError as error:
            raise InputError(f"the virtual camera needs pyvirtualcam, which is not installed; {PACKAGE}") from error
        self._size = size
        try:
            self._camera: Any = pyvirtualcam.Camera(*size, rate, fmt=pyvirtualcam.PixelFormat.RGB, device=device)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            cure = INSTALL.get(platform.system(), "see https://github.com/letmaik/pyvirtualcam")
            raise InputError(f"there is no virtual camera ({reason}); {cure}") from error

    @property
    def device(self) -> str:
        """What to choose in the other program."""
        return str(self._camera.device)

    def write(self, frame: Frame) -> None:
        pixels = frame.pixels
        if (frame.width, frame.height) != self._size:
            pixels = cv2.resize(pixels, self._size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        self._camera.send(pixels)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._camera.close()
