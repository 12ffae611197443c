"""To other programs: pipes, network, virtual camera."""

import socket
import subprocess
import sys
import threading
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from clips import smooth_picture
from live_fakes import grey

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.live import virtual_camera
from videonst.live.broadcast import KEY_FRAME_SECONDS, BroadcastSink, open_broadcast
from videonst.live.virtual_camera import VirtualCameraSink

FRAMES = 40
SIZE = (64, 48)


def frames(size=SIZE) -> list[Frame]:
    picture = smooth_picture(*size)
    return [Frame(picture, pts=40 * n, time_base=Fraction(1, 1000)) for n in range(FRAMES)]


def decoded(path: Path | str, **options) -> list[av.VideoFrame]:
    with av.open(str(path), **options) as container:
        return list(container.decode(video=0))


def test_transport_stream_keeps_times_and_colours(tmp_path: Path):
    path = tmp_path / "out.ts"
    with BroadcastSink(str(path), "mpegts", SIZE, 25) as sink:
        for frame in frames():
            sink.write(frame)
    pictures = decoded(path)
    assert len(pictures) == FRAMES
    steps = {round((b.pts - a.pts) * a.time_base * 1000) for a, b in pairwise(pictures)}
    assert steps == {40}
    keys = [n for n, picture in enumerate(pictures) if picture.key_frame]
    assert keys == list(range(0, FRAMES, round(25 * KEY_FRAME_SECONDS)))
    error = np.abs(pictures[-1].to_ndarray(format="rgb24").astype(int) - frames()[0].pixels)
    assert error.mean() < 3


def test_no_frame_is_held_back(tmp_path: Path):
    """Each frame is in the file before the next one is there, one frame of parsing aside."""
    path = tmp_path / "out.ts"
    with BroadcastSink(str(path), "mpegts", SIZE, 25) as sink:
        sizes = []
        for frame in frames()[:10]:
            sink.write(frame)
            sizes.append(path.stat().st_size)
    assert all(later > earlier for earlier, later in pairwise(sizes[1:]))


def test_odd_sizes_lose_a_row_or_column(tmp_path: Path):
    path = tmp_path / "out.ts"
    with BroadcastSink(str(path), "mpegts", (65, 49), 25) as sink:
        for frame in frames((65, 49)):
            sink.write(frame)
    assert (decoded(path)[0].width, decoded(path)[0].height) == (64, 48)


def test_to_a_listener_over_the_network():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seen: list[av.VideoFrame] = []

    def listen() -> None:
        with av.open(f"tcp://127.0.0.1:{port}?listen=1", timeout=(30, 30)) as container:
            seen.extend(container.decode(video=0))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    sink = None
    for _ in range(100):
        try:
            sink = open_broadcast(f"tcp://127.0.0.1:{port}", SIZE, 25)
            break
        except InputError:
            listener.join(0.05)
    assert sink
    with sink:
        for frame in frames():
            sink.write(frame)
    listener.join(60)
    assert len(seen) == FRAMES


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http://host/x", "cannot send to 'http://host/x'; expected - or one of udp://"),
        ("file.mp4", "cannot send to 'file.mp4'"),
        ("tcp://127.0.0.1:1", "check the address and that a server listens there"),
    ],
)
def test_where_nothing_can_be_sent(target: str, message: str):
    with pytest.raises(InputError, match=message):
        open_broadcast(target, SIZE, 25)


def test_formats_of_standard_output():
    with pytest.raises(InputError, match="unknown format 'avi'; expected mpegts or raw"):
        open_broadcast("-", SIZE, 25, "avi")


def test_raw_pixels_on_standard_output():
    program = (
        "import numpy as np; from videonst.frame import Frame; from videonst.live.broadcast import open_broadcast\n"
        "with open_broadcast('-', (4, 2), 25, 'raw') as sink:\n"
        "    for n in range(3): sink.write(Frame(np.full((2, 4, 3), n, np.uint8)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=True
    )
    assert done.stdout == bytes([0] * 24 + [1] * 24 + [2] * 24)


class FakeCamera:
    device = "/dev/video9"

    def __init__(self, width, height, fps, *, fmt, device) -> None:
        if device == "absent":
            raise RuntimeError("'v4l2loopback' backend:\nno device found")
        self.opened = (width, height, fps, fmt, device)
        self.sent: list[np.ndarray] = []
        self.closed = False

    def send(self, pixels: np.ndarray) -> None:
        self.sent.append(pixels)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def pyvirtualcam(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(Camera=FakeCamera, PixelFormat=SimpleNamespace(RGB="rgb"))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", module)


@pytest.mark.usefixtures("pyvirtualcam")
def test_virtual_camera_is_fed_rgb_of_its_size():
    with VirtualCameraSink((64, 48), 30) as sink:
        assert sink.device == "/dev/video9"
        sink.write(grey(7))
        sink.write(grey(9, (128, 96)))
        camera = sink._camera
    assert camera.opened == (64, 48, 30, "rgb", None)
    assert [(p.shape, int(p[0, 0, 0])) for p in camera.sent] == [((48, 64, 3), 7), ((48, 64, 3), 9)]
    assert camera.closed


@pytest.mark.usefixtures("pyvirtualcam")
@pytest.mark.parametrize(
    ("system", "cure"), [("Linux", "modprobe v4l2loopback exclusive_caps=1"), ("Darwin", "OBS"), ("Windows", "OBS")]
)
def test_without_a_virtual_camera_the_line_that_installs_one(monkeypatch: pytest.MonkeyPatch, system: str, cure: str):
    monkeypatch.setattr(virtual_camera.platform, "system", lambda: system)
    with pytest.raises(InputError, match=cure) as caught:
        VirtualCameraSink((64, 48), 30, "absent")
    assert "no device found" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_package_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(InputError, match=r"pip install 'videonst\[camera\]'"):
        VirtualCameraSink((64, 48), 30)
