"""A made-up camera: what is asked of it and in which order, what happens when it is unplugged."""

import logging
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from videonst.errors import InputError
from videonst.live.capture import Capture
from videonst.sources import camera as camera_module
from videonst.sources.camera import Camera, CameraMode, CameraSource, list_cameras

WAIT = 30.0


class FakeCamera:
    """Delivers numbered grey pictures, in a mode of its own, until told otherwise.

    Attributes:
        script: for every read, whether a picture comes; None always.
    """

    def __init__(self, size: tuple[int, int] = (64, 48), rate: float = 15.0, script: Iterator[bool] | None = None):
        self.size, self.rate, self.script = size, rate, script
        self.opened, self.plugged = 0, True
        self.asked: list[tuple[int, float]] = []
        self.reads = 0

    def __call__(self, camera: int | str, backend: int) -> "FakeCamera":
        self.opened += 1
        self.camera, self.backend = camera, backend
        return self

    def isOpened(self) -> bool:  # noqa: N802
        return self.plugged

    def set(self, key: int, value: float) -> bool:
        self.asked.append((key, value))
        return False

    def get(self, key: int) -> float:
        return {cv2.CAP_PROP_FPS: self.rate, cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"YUYV")}.get(key, 0)

    def read(self):
        if not (self.plugged and (self.script is None or next(self.script))):
            return False, None
        self.reads += 1
        width, height = self.size
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[..., 0], pixels[:, 0, 2] = self.reads % 256, 200
        return True, pixels

    def release(self) -> None:
        pass


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module, "RETRY_SECONDS", 0.001)


def test_the_mode_is_asked_for_in_the_order_that_drivers_need_and_read_back():
    fake = FakeCamera()
    with CameraSource(0, CameraMode(1280, 720, 30), open_capture=fake) as source:
        keys = [key for key, _ in fake.asked]
        assert keys == [
            cv2.CAP_PROP_FOURCC, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS,
            cv2.CAP_PROP_BUFFERSIZE,
        ]  # fmt: skip
        assert dict(fake.asked)[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
        assert source.report == "asked 1280x720@30 MJPG, got 64x48@15 YUYV"
        assert (source.info.width, source.info.height, source.info.average_rate) == (64, 48, 15)


def test_frames_are_rgb_and_stamped_when_they_come():
    times = iter([10.0, 10.0, 10.0, 10.25, 10.25])
    with CameraSource(3, open_capture=FakeCamera(), clock=lambda: next(times)) as source:
        frames = list(islice(source, 4))
    assert [frame.pixels[0, 5, 2] for frame in frames] == [1, 2, 3, 4]
    assert frames[0].pixels[0, 0, 0] == 200
    assert [float(frame.time) for frame in frames] == [0, 1e-6, 0.25, 0.250001]


@pytest.mark.parametrize("mirror", [True, False])
def test_capture_mirrors(mirror: bool):
    with Capture(CameraSource(0, open_capture=FakeCamera()), mirror=mirror) as capture:
        frame = capture.box.take(WAIT).item
    assert frame.pixels[0, -1 if mirror else 0, 0] == 200
    assert frame.pixels[0, 0 if mirror else -1, 0] == 0


def test_an_unplugged_camera_is_waited_for(caplog: pytest.LogCaptureFixture):
    fake = FakeCamera()
    with CameraSource(0, open_capture=fake) as source:
        frames = iter(source)
        next(frames)
        opened = fake.opened
        tries = iter([False, False, False, True, True, True])
        fake.script = tries
        troubles = []
        fake.isOpened = lambda: troubles.append(source.trouble) or True  # looked at on every attempt
        fake.size = (128, 96)  # back in another mode
        frame = next(frames)
        assert fake.opened > opened + 1
        assert troubles[0] == "camera 0 stopped delivering; waiting for it to come back"
        assert source.trouble == ""
        assert (frame.width, frame.height) == (64, 48)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "is back" in caplog.records[1].message


def test_stopping_ends_the_wait_for_a_lost_camera():
    fake = FakeCamera()
    with Capture(CameraSource(0, open_capture=fake)) as capture:
        capture.box.take(WAIT)
        fake.plugged = False
        deadline = time.monotonic() + WAIT
        while not capture.trouble and time.monotonic() < deadline:
            capture.box.take(0.01)
        assert capture.trouble
    assert not capture._thread.is_alive()


def test_no_camera_and_no_picture_are_said(monkeypatch: pytest.MonkeyPatch):
    fake = FakeCamera()
    fake.plugged = False
    with pytest.raises(InputError, match="cannot open camera 7; "):
        CameraSource(7, open_capture=fake)
    with pytest.raises(InputError, match="camera 7 delivers no picture"):
        CameraSource(7, open_capture=FakeCamera(script=iter([False] * 9)))
    with pytest.raises(InputError, match="unknown camera backend 'v5l'; expected auto, v4l2"):
        CameraSource(0, backend="v5l", open_capture=FakeCamera())
    chosen = FakeCamera()
    CameraSource(0, backend="gstreamer", open_capture=chosen)
    assert chosen.backend == cv2.CAP_GSTREAMER


def test_opencv_says_nothing_of_a_missing_camera(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(InputError, match="cannot open camera /dev/video99"):
        CameraSource("/dev/video99")
    assert capfd.readouterr() == ("", "")


def test_linux_lists_cameras_without_their_metadata_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(camera_module.platform, "system", lambda: "Linux")
    for node, index, name in [("video10", 0, "Dock"), ("video0", 0, "Built-in"), ("video1", 1, "Built-in")]:
        (tmp_path / node).mkdir()
        (tmp_path / node / "index").write_text(f"{index}\n")
        (tmp_path / node / "name").write_text(f"{name}\n")
    assert list_cameras(FakeCamera(), tmp_path) == [Camera(0, "Built-in"), Camera(10, "Dock")]
    assert list_cameras(FakeCamera(), tmp_path / "absent") == []


def test_elsewhere_the_first_numbers_are_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(camera_module.platform, "system", lambda: "Darwin")

    def open_capture(number: int, backend: int) -> FakeCamera:
        fake = FakeCamera()
        fake.plugged = number in (0, 2) and backend == cv2.CAP_AVFOUNDATION
        return fake

    assert list_cameras(open_capture) == [Camera(0, ""), Camera(2, "")]
