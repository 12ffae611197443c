"""The window of `videonst live` on a screen that nobody looks at, driven with mouse and keys by xdotool."""

import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip, video_timing

from videonst.live.view import WAITING_LEVEL
from videonst.live.window import CONTROLS_TITLE, TITLE

WAIT = 60.0
PATIENCE = 3.0
"""Seconds after which a window that does not show what it should is mapped anew."""
SIZE = (320, 240)
STYLES = ("a", "b", "c")

PROBE = (
    "import cv2, numpy as np\n"
    "cv2.namedWindow('probe'); cv2.imshow('probe', np.zeros((9, 9, 3), np.uint8)); cv2.waitKey(50)"
)


class Screen:
    """An X server without a monitor.

    Attributes:
        environment: for programs that are to use it.
    """

    def __init__(self, folder: Path) -> None:
        read_end, write_end = os.pipe()
        self._folder = folder
        command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
        self._server = subprocess.Popen(
            [*command, "-fbdir", str(folder)],
            pass_fds=[write_end],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(write_end)
        said = b""  # the number and the end of the line come in two parts, and the server ends where nobody hears both
        while not said.endswith(b"\n") and select.select([read_end], [], [], WAIT)[0]:
            part = os.read(read_end, 16)
            if not part:
                break
            said += part
        os.close(read_end)
        number = said.decode().strip()
        self.works = number.isdigit()
        without = {"WAYLAND_DISPLAY", "QT_QPA_PLATFORM", "QT_QPA_FONTDIR"}
        self.environment = {k: v for k, v in os.environ.items() if k not in without} | {"DISPLAY": f":{number}"}

    def close(self) -> None:
        end(self._server)

    def do(self, *words: object) -> str:
        """What xdotool answers, empty where it fails."""
        command = ["xdotool", *map(str, words)]
        done = subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT
        )
        return done.stdout if done.returncode == 0 else ""

    def find(self, title: str) -> str:
        """Waits for a window and gives its number."""
        return wait_for(lambda: self.do("search", "--name", f"^{title}$").split()[:1])[0]

    def geometry(self, window: str) -> tuple[int, int, int, int]:
        """x, y, width, height."""
        shell = dict(line.split("=") for line in self.do("getwindowgeometry", "--shell", window).splitlines())
        return int(shell["X"]), int(shell["Y"]), int(shell["WIDTH"]), int(shell["HEIGHT"])

    def see(self, window: str, wanted: Callable[[np.ndarray], bool]) -> None:
        """Waits until its picture is as `wanted`. On a busy machine the Qt in OpenCV's wheels (5.15) now and then loses
        what the X server says of a new window, and draws nothing more in it until it is mapped again."""
        again = time.monotonic() + PATIENCE

        def look() -> bool:
            nonlocal again
            if wanted(self.picture(window)):
                return True
            if time.monotonic() > again:
                self.do("windowunmap", window, "sleep", 0.2, "windowmap", window)
                again = time.monotonic() + PATIENCE
            return False

        wait_for(look)

    def picture(self, window: str) -> np.ndarray:
        """What is seen there now, (H, W, 3). The X server keeps its screen as a file in XWD format (XWDFile.h)."""
        data = (self._folder / "Xvfb_screen0").read_bytes()
        header = struct.unpack(">25I", data[:100])
        start, width, height, stride = header[0] + 12 * header[19], header[4], header[5], header[12]
        rows = np.frombuffer(data, np.uint8, stride * height, start).reshape(height, stride)
        x, y, w, h = self.geometry(window)
        return rows[:, : 4 * width].reshape(height, width, 4)[y : y + h, x : x + w, :3]


class App:
    """`videonst live` on a screen, and what it says."""

    def __init__(self, screen: Screen, folder: Path, clip: Path, model: Path) -> None:
        self.folder, self.screen = folder, screen
        command = [sys.executable, "-m", "videonst", "--debug", "live", "--source", clip, "--loop", "--model", model]
        self.process = subprocess.Popen(
            list(map(str, [*command, "--device", "cpu", "--folder", folder])),
            env=screen.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def close(self) -> None:
        end(self.process)
        self._listener.join(WAIT)
        self.process.stderr.close()

    def start(self) -> None:
        """Waits for the windows and the first frame."""
        wait_for(lambda: any(line.startswith("source: ") for line in self.said), self.process)
        self.window, self.controls = self.screen.find(TITLE), self.screen.find(CONTROLS_TITLE)
        wait_for(lambda: self.screen.geometry(self.window)[2:] == SIZE, self.process)
        self.screen.see(self.controls, np.any)
        self.screen.see(self.window, lambda shown: np.ptp(shown[:8]) > WAITING_LEVEL)
        self.wait_for_frames(2)

    def wait_for_frames(self, count: int) -> None:
        """Waits until so many other pictures have been seen."""
        for _ in range(count):
            now = self.screen.picture(self.window).copy()
            self.screen.see(self.window, lambda shown, now=now: not np.array_equal(shown, now))

    def key(self, name: str) -> None:
        """OpenCV keeps only the last of several keys that are pressed within a frame."""
        self.screen.do("windowfocus", "--sync", self.window, "key", name)

    def settings(self) -> str:
        """The line about the last change of the controls."""
        return next(line for line in reversed(self.said) if "Settings(" in line)

    def share(self, style: str) -> float:
        return float(re.search(rf"\('{style}', ([\d.]+)\)", self.settings()).group(1))

    def value(self, name: str) -> float:
        return float(re.search(rf"{name}=([\d.]+)", self.settings()).group(1))

    def _listen(self) -> None:
        for line in self.process.stderr:
            self.said.append(line.strip())


def wait_for(look: Callable, process: subprocess.Popen | None = None):
    """What `look` gives as soon as it gives something."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if found := look():
            return found
        assert process is None or process.poll() is None, "the program has ended"
        time.sleep(0.05)
    pytest.fail(f"nothing within {WAIT:g} s")


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    missing = [program for program in ("Xvfb", "xdotool") if not shutil.which(program)]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}: apt-get install xvfb xdotool")
    screen = Screen(tmp_path_factory.mktemp("screen"))
    try:
        if not screen.works:
            pytest.skip("Xvfb does not start here")
        try:
            probe = [sys.executable, "-c", PROBE]
            subprocess.run(
                probe, env=screen.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT, check=True
            )
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
            pytest.skip(f"OpenCV opens no window on Xvfb: {' '.join(said[-3:]) or error}")
        yield screen
    finally:
        screen.close()


@pytest.fixture
def app(screen: Screen, small_model: Path, tmp_path: Path) -> Iterator[App]:
    folder = tmp_path / "kept"
    folder.mkdir()
    app = App(screen, folder, make_clip(tmp_path / "clip.mp4", size=SIZE), small_model)
    try:
        app.start()
        yield app
    finally:
        app.close()


def test_keys_work_and_the_sliders_follow(app: App):
    before = app.screen.picture(app.controls).copy()
    app.key("n")
    wait_for(lambda: app.share("b") == 1)
    assert app.share("a") == 0
    app.screen.see(app.controls, lambda shown: (shown != before).any())
    app.key("p")
    wait_for(lambda: app.share("a") == 1)
    app.key("p")
    wait_for(lambda: app.share("c") == 1)
    app.key("c")
    wait_for(lambda: "keep_colour=True" in app.settings())
    app.key("space")
    wait_for(lambda: app.screen.geometry(app.window)[2:] == (2 * SIZE[0], SIZE[1]))
    app.screen.see(app.window, lambda shown: difference(shown.astype(int)) > 5)  # the original and something else
    app.key("space")
    wait_for(lambda: app.screen.geometry(app.window)[2:] == SIZE)
    app.key("q")
    assert app.process.wait(WAIT) == 0


def test_the_picture_fills_the_window(app: App):
    app.screen.see(app.window, reaches_the_edges)
    app.key("space")
    wait_for(lambda: app.screen.geometry(app.window)[2:] == (2 * SIZE[0], SIZE[1]))
    app.screen.see(app.window, reaches_the_edges)


def reaches_the_edges(shown: np.ndarray) -> bool:
    return all(np.ptp(edge) > WAITING_LEVEL for edge in (shown[:4], shown[-4:], shown[:, :4], shown[:, -4:]))


def difference(shown: np.ndarray) -> float:
    """Of the halves, mean, in levels."""
    return float(np.abs(shown[:, : SIZE[0]] - shown[:, SIZE[0] :]).mean())


def test_help_darkens_the_picture(app: App):
    middle = slice(SIZE[1] // 2 - 30, SIZE[1] // 2 + 30)
    plain = app.screen.picture(app.window)[middle].mean()
    app.key("h")
    app.screen.see(app.window, lambda shown: shown[middle].mean() < 0.7 * plain)


def test_trackbars_move_everything(app: App):
    """Clicks down the right end of the sliders: each of them goes up, and none stays."""
    x, y, width, height = app.screen.geometry(app.controls)
    start = {"strength": app.value("strength"), "steady": app.value("steady")}
    for row in range(4, height, 6):
        app.screen.do("mousemove", x + width - 12, y + row, "click", 1, "click", 1)
    wait_for(lambda: app.value("steady") > start["steady"])
    assert app.value("strength") > start["strength"]
    assert app.share("b") > 0
    assert app.share("c") > 0


def test_a_recording_and_a_snapshot(app: App):
    app.key("s")
    snapshot = wait_for(lambda: list(app.folder.glob("*.png")))[0]
    app.key("r")
    wait_for(lambda: list(app.folder.glob(".*.mp4.part")))
    app.wait_for_frames(5)
    app.key("r")
    recording = wait_for(lambda: list(app.folder.glob("videonst-*.mp4")))[0]
    assert cv2.imread(str(snapshot)).shape == (SIZE[1], SIZE[0], 3)
    starts = [start for start, _ in video_timing(recording)]
    assert starts[0] == 0
    assert {round(start * 1000) % 40 for start in starts} == {0}  # the clip's frames, at its times


@pytest.mark.parametrize("how", ["q", "SIGINT"])
def test_ending_finishes_the_recording(app: App, how: str):
    app.key("r")
    wait_for(lambda: list(app.folder.glob(".*.mp4.part")))
    app.wait_for_frames(5)
    if how == "q":
        app.key("q")
    else:
        app.process.send_signal(signal.SIGINT)
    assert app.process.wait(WAIT) == (0 if how == "q" else 130)
    (recording,) = app.folder.iterdir()
    assert len(video_timing(recording)) > 0
    assert "Traceback" not in "\n".join(app.said)
