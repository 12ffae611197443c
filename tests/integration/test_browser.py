"""The page in a real browser: headless Chromium with a fake camera that shows one picture for ever."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from web_server import SlowEngines, fetch_json, running, wait_until

from videonst.api import load
from videonst.frame import Pixels
from videonst.live.capture import Capture
from videonst.live.painter import Engines
from videonst.sources.live import open_recording
from videonst.web.access import Access
from videonst.web.app import ServeSettings
from videonst.web.server import PageServer
from videonst.web.workshop import LearnOptions

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

SOAK_SECONDS = float(os.environ.get("VIDEONST_SOAK_SECONDS", 6))
"""How long the delay is watched; 60 for a full run."""

PROBE_SECONDS = 60
STEP_SECONDS = 30
"""What one command to the browser may take."""

WIDTH, HEIGHT = 160, 120

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,800",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
)  # fmt: skip


@pytest.fixture(scope="session")
def chromium() -> tuple[str, str]:
    """Paths of a Chromium that comes up here and of its driver."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no chromium with chromedriver; on Debian: apt-get install chromium chromium-driver")
    code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}\n"
    code += f"from test_browser import browse\nwith browse({(browser, driver)!r}) as page: page.get('about:blank')"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True, text=True, timeout=PROBE_SECONDS, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip(f"{browser} does not come up within {PROBE_SECONDS} seconds")
    if probe.returncode:
        pytest.skip(f"{browser} does not come up: {(probe.stderr.strip() or 'no message').splitlines()[-1]}")
    return browser, driver


@contextmanager
def browse(paths: tuple[str, str], folder: Path | None = None, clip: Path | None = None) -> Iterator[Any]:
    """A browser with a profile of its own; its whole process group is gone when the block is left, or this process."""
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for argument in ARGUMENTS:
        options.add_argument(argument)
    if clip is not None:
        options.add_argument(f"--use-file-for-fake-video-capture={clip}")
    if folder is not None:
        options.add_argument(f"--user-data-dir={folder / 'profile'}")
        options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # The browser's process group is led by a shell that ends it when its input ends, however that comes.
    leader = subprocess.Popen(["sh", "-c", "cat >/dev/null; kill -9 0"], stdin=subprocess.PIPE, process_group=0)
    service = Service(executable_path=paths[1], popen_kw={"process_group": leader.pid})
    driver = None
    try:
        driver = webdriver.Chrome(options=options, service=service)
        driver.command_executor.client_config.timeout = STEP_SECONDS
        driver.set_page_load_timeout(STEP_SECONDS)
        driver.set_script_timeout(STEP_SECONDS)
        yield driver
    finally:
        if driver is not None:
            quitting = threading.Thread(target=lambda: _quit(driver), daemon=True)
            quitting.start()
            quitting.join(30)
        leader.communicate(timeout=30)
        if service.process is not None:
            service.process.wait(30)


def _quit(driver: Any) -> None:
    with suppress(Exception):
        driver.quit()


@pytest.fixture(scope="module")
def picture(portrait: np.ndarray) -> Pixels:
    """What the fake camera shows; its left third is dark, so that it differs from its mirror image."""
    small = cv2.resize(portrait[:270], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    small[:, : WIDTH // 3] //= 6
    return np.ascontiguousarray(small)


@pytest.fixture(scope="module")
def clip(picture: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mjpeg"
    quality = (cv2.IMWRITE_JPEG_QUALITY, 95)
    path.write_bytes(10 * cv2.imencode(".jpg", picture[..., ::-1], quality)[1].tobytes())
    return path


@pytest.fixture(scope="module")
def looks(small_model: Path, picture: Pixels) -> Callable[..., np.ndarray]:
    """What the canvas should show, coarsely: the picture, mirrored or not, painted by the library."""
    stylizer = load(small_model, device="cpu")

    def look(style: str, *, mirrored: bool = True, **how: Any) -> np.ndarray:
        seen = np.ascontiguousarray(picture[:, ::-1]) if mirrored else picture
        return coarse(stylizer.stylize(seen, style, **how))

    return look


@pytest.fixture
def page(chromium: tuple[str, str], tmp_path: Path, clip: Path) -> Iterator[Any]:
    with browse(chromium, tmp_path, clip) as driver:
        yield driver


@pytest.fixture(scope="module")
def server(small_model: Path) -> Iterator[PageServer]:
    with running(ServeSettings(engines=Engines(small_model), access=Access.to("127.0.0.1"))) as it:
        yield it


def coarse(pixels: np.ndarray) -> np.ndarray:
    """Mean colours of 4 x 3 fields."""
    return cv2.resize(pixels.astype(np.float32), (4, 3), interpolation=cv2.INTER_AREA)


def canvas(page: Any) -> np.ndarray:
    size, data = page.execute_script(
        "const c = document.getElementById('canvas');"
        "return [[c.height, c.width], Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]"
    )
    return np.array(data, np.uint8).reshape(*size, 4)[..., :3]


SAME = 12.0
"""Mean difference in levels up to which two coarse pictures are the same: JPEG twice, and the camera's conversions."""


def shows(page: Any, expected: np.ndarray) -> bool:
    return bool(np.abs(coarse(canvas(page)) - expected).mean() < SAME)


def start(page: Any, server: PageServer, query: str = "") -> None:
    page.get(f"http://127.0.0.1:{server.port}/{query}")
    wait_until(lambda: text(page, "state") == "Ready")
    click(page, "start-camera")
    wait_until(lambda: text(page, "state").startswith("Live"))
    wait_until(lambda: text(page, "fps") != "–")


def text(page: Any, name: str) -> str:
    return str(page.find_element(By.ID, name).text)


def click(page: Any, name: str) -> None:
    page.find_element(By.ID, name).click()


def mix_of(page: Any, server: PageServer) -> dict[str, Any]:
    session = page.execute_script("return document.body.dataset.session")
    return fetch_json(server, f"api/mix?session={session}")  # type: ignore[no-any-return]


def complaints(page: Any) -> list[str]:
    return [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]


def test_the_styles_differ_enough_to_be_told_apart(looks: Callable[..., np.ndarray]):
    pictures = [looks("a"), looks("b"), looks("c"), looks("a", strength=0)]
    for index, one in enumerate(pictures):
        for other in pictures[index + 1 :]:
            assert np.abs(one - other).mean() > 2 * SAME


def test_sliders_change_the_canvas(page: Any, server: PageServer, looks: Callable[..., np.ndarray]):
    start(page, server)
    fetch_json(server, "api/mix", {"steady": 0}, "PUT")
    wait_until(lambda: shows(page, looks("a")))
    assert canvas(page).shape == (HEIGHT, WIDTH, 3)
    slider = page.find_element(By.CSS_SELECTOR, "input[data-style=b]")
    slider.send_keys(Keys.END)
    wait_until(lambda: mix_of(page, server)["mix"] == {"a": 1.0, "b": 1.0})
    wait_until(lambda: shows(page, looks("a, b")))
    page.find_element(By.CSS_SELECTOR, "button[aria-label^='Only C']").click()
    wait_until(lambda: shows(page, looks("c")))
    assert [badge.text for badge in page.find_elements(By.CLASS_NAME, "badge")] == ["", "", "100 %"]
    page.find_element(By.ID, "strength").send_keys(Keys.HOME)
    wait_until(lambda: shows(page, looks("c", strength=0)))
    click(page, "mirror")
    wait_until(lambda: shows(page, looks("c", strength=0, mirrored=False)))
    assert not shows(page, looks("c", strength=0))
    click(page, "mirror")
    page.find_element(By.ID, "strength").send_keys(Keys.END)
    wait_until(lambda: shows(page, looks("c", strength=2)))
    click(page, "keep-colour")
    wait_until(lambda: shows(page, looks("c", strength=2, keep_colour=True)))
    assert complaints(page) == []


def test_cross_fade_pad_and_the_api_move_the_same_mixture(page: Any, server: PageServer):
    start(page, server)
    click(page, "tab-fade")
    page.find_element(By.ID, "fade").send_keys(Keys.END)
    wait_until(lambda: mix_of(page, server)["mix"] == {"b": 1.0})
    click(page, "tab-pad")  # four corners over three styles: a, b, c, a
    pad = page.find_element(By.ID, "pad")
    for _ in range(20):
        pad.send_keys(Keys.ARROW_LEFT)
        pad.send_keys(Keys.ARROW_DOWN)
    wait_until(lambda: mix_of(page, server)["mix"] == {"c": 1.0})
    session = page.execute_script("return document.body.dataset.session")
    fetch_json(server, f"api/mix?session={session}", {"mix": "a", "strength": 0.25}, "PUT")
    wait_until(lambda: text(page, "strength-value") == "25 %")
    click(page, "tab-styles")
    values = "return [...document.querySelectorAll('.card input')].map((range) => range.value)"
    wait_until(lambda: page.execute_script(values) == ["1", "0", "0"])
    page.find_element(By.TAG_NAME, "body").send_keys("n")  # keys of the page
    wait_until(lambda: mix_of(page, server)["mix"] == {"b": 1.0})
    page.find_element(By.TAG_NAME, "body").send_keys("c")
    wait_until(lambda: mix_of(page, server)["keep_colour"])
    assert complaints(page) == []


def test_choices_outlive_the_connection(page: Any, small_model: Path):
    settings = ServeSettings(engines=Engines(small_model))
    with running(settings) as server:
        page.get(f"http://127.0.0.1:{server.port}/")
        wait_until(lambda: text(page, "state") == "Ready")
        page.find_element(By.CSS_SELECTOR, "button[aria-label^='Only B']").click()  # before the camera is started
        click(page, "start-camera")
        wait_until(lambda: text(page, "state").startswith("Live"))
        wait_until(lambda: mix_of(page, server)["mix"] == {"b": 1.0})
        page.find_element(By.ID, "strength").send_keys(Keys.END)
        wait_until(lambda: mix_of(page, server)["strength"] == 2)
    wait_until(lambda: "trying again" in text(page, "state"))
    with running(settings, server.port) as again:
        wait_until(lambda: text(page, "state").startswith("Live"))
        wait_until(lambda: fetch_json(again, "api/status")["cameras"] == 1)
        wait_until(lambda: (mix_of(page, again)["mix"], mix_of(page, again)["strength"]) == ({"b": 1.0}, 2))
        wait_until(lambda: text(page, "fps") != "–")


def test_sessions_are_independent(page: Any, server: PageServer):
    start(page, server)
    page.find_element(By.CSS_SELECTOR, "button[aria-label^='Only B']").click()
    wait_until(lambda: mix_of(page, server)["mix"] == {"b": 1.0})
    first = page.current_window_handle
    page.switch_to.new_window("window")
    start(page, server)
    assert fetch_json(server, "api/status")["cameras"] == 2
    assert mix_of(page, server)["mix"] == {"a": 1.0}
    page.find_element(By.CSS_SELECTOR, "button[aria-label^='Only C']").click()
    wait_until(lambda: mix_of(page, server)["mix"] == {"c": 1.0})
    click(page, "stop")
    wait_until(lambda: fetch_json(server, "api/status")["cameras"] == 1)
    page.switch_to.window(first)
    assert mix_of(page, server)["mix"] == {"b": 1.0}
    wait_until(lambda: text(page, "fps") != "–")


def test_snapshot_and_recording(page: Any, server: PageServer, tmp_path: Path):
    start(page, server)
    click(page, "compare")
    divider = page.find_element(By.ID, "divider")
    divider.send_keys(Keys.END)  # the original, all of it
    click(page, "snapshot")
    wait_until(lambda: list(tmp_path.glob("videonst-*.png")))
    [snapshot] = tmp_path.glob("videonst-*.png")
    wait_until(lambda: cv2.imread(str(snapshot)) is not None)
    assert cv2.imread(str(snapshot)).shape == (HEIGHT, WIDTH, 3)
    click(page, "record")
    wait_until(lambda: text(page, "recording") >= "0:03")
    click(page, "record")
    wait_until(lambda: [*tmp_path.glob("videonst-*.webm"), *tmp_path.glob("videonst-*.mp4")])
    [recording] = [*tmp_path.glob("videonst-*.webm"), *tmp_path.glob("videonst-*.mp4")]
    with av.open(str(recording)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) > 1
    assert times == sorted(times)


def test_delay_stays_bounded_behind_a_slow_server(page: Any, small_model: Path, monkeypatch: pytest.MonkeyPatch):
    """At 10 frames a second against a camera's 20, a queue would grow by half a second every second."""
    monkeypatch.setattr("videonst.temporal.lookout.same", lambda first, second: False)  # a picture is painted once
    slow = SlowEngines(small_model, lambda: time.sleep(0.1))
    with running(ServeSettings(engines=slow)) as server:
        start(page, server)
        readings: list[tuple[float, float]] = []
        ends = time.monotonic() + SOAK_SECONDS
        while time.monotonic() < ends or (not readings and time.monotonic() < ends + STEP_SECONDS):
            time.sleep(0.5)
            half, most = (text(page, name).removesuffix(" ms") for name in ("delay", "delay95"))
            if half != "–":
                readings.append((float(half), float(most)))
        dropped = float(text(page, "drops"))
        status = fetch_json(server, "api/status")["sessions"][0]
        click(page, "stop")
    report = {"seconds": SOAK_SECONDS, "delay_p50_p95_ms": readings, "dropped_a_second": dropped, "server": status}
    logging.getLogger(__name__).info("%s", json.dumps(report))
    assert dropped > 0  # the camera was faster
    assert 100 <= readings[-1][0] < 2000  # two frames of 0.1 s, ten times over
    assert status["delay_p50_ms"] >= 100


def test_watching_the_source_beside_its_original(page: Any, small_model: Path, picture: Pixels, tmp_path: Path):
    still = tmp_path / "still.png"
    cv2.imwrite(str(still), picture[..., ::-1])
    settings = ServeSettings(
        engines=Engines(small_model),
        open_capture=lambda: Capture(open_recording(still, loop=True)),
        source_name="still.png",
    )
    painted = coarse(load(small_model, device="cpu").stylize(picture, "a"))
    with running(settings) as server:
        page.get(f"http://127.0.0.1:{server.port}/")
        wait_until(lambda: text(page, "start-source") == "Watch still.png")
        click(page, "start-source")
        wait_until(lambda: shows(page, painted))
        click(page, "compare")
        page.find_element(By.ID, "divider").send_keys(Keys.END)
        wait_until(lambda: shows(page, coarse(picture)))
        assert fetch_json(server, "api/status")["viewers"] == 1
        assert complaints(page) == []


def test_tokens_and_origins(page: Any, small_model: Path, server: PageServer):
    token = "correct-horse"
    with running(ServeSettings(engines=Engines(small_model), access=Access.to("0.0.0.0", token))) as guarded:
        address = f"http://127.0.0.1:{guarded.port}/"
        for query in ("", "?token=wrong-horse"):
            page.get(address + query)
            assert "token is missing or wrong" in page.page_source
        start(page, guarded, f"?token={token}")
        assert page.current_url == address
        click(page, "stop")
        page.get("data:text/html,a page of somebody else")
        for address in (f"ws://127.0.0.1:{guarded.port}/ws/camera", f"ws://127.0.0.1:{server.port}/ws/camera"):
            opened = page.execute_async_script(
                "const [address, done] = arguments; const socket = new WebSocket(address);"
                "socket.onopen = () => done(true); socket.onclose = () => done(false);",
                address,
            )
            assert opened is False
        assert fetch_json(server, "api/status")["cameras"] == 0


def test_places_taken_are_told(page: Any, small_model: Path):
    with running(ServeSettings(engines=Engines(small_model), max_sessions=0)) as server:
        page.get(f"http://127.0.0.1:{server.port}/")
        wait_until(lambda: text(page, "state") == "Ready")
        click(page, "start-camera")
        wait_until(lambda: "all 0 camera places are taken" in text(page, "notice"))


def test_an_uploaded_painting_becomes_a_style(
    page: Any, small_model: Path, portrait: np.ndarray, picture: Pixels, tmp_path: Path
):
    """With a stub in place of `videonst learn`; the camera's picture goes on meanwhile."""
    pytest.importorskip("torch", reason="needs the [train] extra")
    painting = tmp_path / "Old Lion.png"
    cv2.imwrite(str(painting), portrait[..., ::-1])
    stub = (sys.executable, str(Path(__file__).parent.parent / "learn_stub.py"))
    options = LearnOptions(folder=tmp_path, command=stub)
    with running(ServeSettings(engines=Engines(small_model), learning=options)) as server:
        start(page, server)
        fetch_json(server, "api/mix", {"steady": 0}, "PUT")
        choose = "const model = document.getElementById('model'); model.value = arguments[0]; model.onchange()"
        page.execute_script(choose, str(small_model))
        wait_until(lambda: mix_of(page, server)["model"] == str(small_model))
        page.find_element(By.CSS_SELECTOR, "#own summary").click()
        page.find_element(By.ID, "learn-file").send_keys(str(painting))
        wait_until(lambda: page.find_element(By.ID, "learn-name").get_property("value") == "Old_Lion")
        click(page, "learn-start")
        wait_until(lambda: "1:01 left" in text(page, "learn-said"), 2 * PROBE_SECONDS)  # a process of low priority
        preview = page.find_element(By.ID, "learn-preview")
        wait_until(lambda: preview.get_property("naturalWidth") == 8)
        before = fetch_json(server, "api/status")["sessions"][0]
        assert before["kind"] == "camera"
        click(page, "learn-keep")
        wait_until(lambda: "Old_Lion is among the styles" in text(page, "learn-said"), 2 * PROBE_SECONDS)
        wait_until(lambda: mix_of(page, server)["mix"] == {"Old_Lion": 1.0})
        titles = [title.text for title in page.find_elements(By.CSS_SELECTOR, ".card .title")]
        assert titles == ["A", "B", "C", "Old_Lion"]
        models = "return [...document.querySelectorAll('#model option')].map((option) => option.text)"
        assert page.execute_script(models) == ["automatic", "styles-1.onnx"]
        mirrored = np.ascontiguousarray(picture[:, ::-1])
        painted = load(tmp_path / "styles-1.onnx", device="cpu").stylize(mirrored, "Old_Lion")
        wait_until(lambda: shows(page, coarse(painted)))
        assert complaints(page) == []
