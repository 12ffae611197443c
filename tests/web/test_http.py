"""The page and the HTTP API, against a real server."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from web_server import PATIENCE, SlowEngines, call, fetch_json, jpeg, open_socket, read_picture, receive_json, running
from websockets.exceptions import InvalidStatus

from videonst.api import load
from videonst.live.painter import Engines
from videonst.styles import StyleMix
from videonst.web.access import Access
from videonst.web.app import MAX_IMAGE_BYTES, PAGE, ServeSettings
from videonst.web.server import PageServer

TOKEN = "correct-horse"


@pytest.fixture(scope="module")
def server(small_model: Path) -> Iterator[PageServer]:
    with running(ServeSettings(engines=Engines(small_model), access=Access.to("127.0.0.1"))) as it:
        yield it


def test_the_page_needs_nothing_from_elsewhere(server: PageServer):
    status, html = call(server, "")
    assert status == 200
    texts = {path.name: path.read_text() for path in PAGE.iterdir()}
    linked = {name for name in re.findall(r'(?:href|src)="([^"#]+)"', html.decode()) if not name.startswith("api/")}
    linked |= {
        name
        for text in texts.values()
        for name in re.findall(r'from "\./([^"]+)"|url\(([\w.]+)\)', text)
        for name in name
        if name
    }
    assert linked == set(texts) - {"index.html"}  # nothing missing, nothing left over
    for name in linked:
        assert call(server, name) == (200, texts[name].encode())
    for name, text in texts.items():
        foreign = re.findall(r"(?:https?:)?//[\w.]+\.\w+", re.sub(r"http://www\.w3\.org/2000/svg", "", text))
        assert not foreign, name


def test_every_element_that_scripts_name_exists():
    html = (PAGE / "index.html").read_text()
    ids = set(re.findall(r'\bid="([\w-]+)"', html))
    scripts = "".join(path.read_text() for path in PAGE.glob("*.js"))
    named = set(re.findall(r'(?:\$|getElementById)\("([\w-]+)"\)', scripts))
    assert named <= ids
    assert set(re.findall(r'aria-controls="([\w-]+)"', html)) <= ids


def test_headers_keep_the_page_to_itself(server: PageServer):
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=PATIENCE) as answer:
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert call(server, "../../pyproject.toml")[0] == 404


def test_status_and_styles(server: PageServer, small_model: Path):
    status = fetch_json(server, "api/status")
    assert status["models"] == ["auto", str(small_model)]
    assert (status["cameras"], status["viewers"], status["source"], status["max_sessions"]) == (0, 0, None, 4)
    styles = fetch_json(server, "api/styles")
    assert [style["name"] for style in styles] == ["a", "b", "c"]
    assert styles[0]["thumbnail"].startswith("data:image/")


def test_image_is_what_the_library_paints(server: PageServer, small_model: Path, portrait: np.ndarray):
    data = cv2.imencode(".png", portrait[:90, :120, ::-1])[1].tobytes()
    query = "api/image?mix=a:0.3,b:0.7&strength=0.8&keep_colour=true"
    status, painted = call(server, query, data)
    assert status == 200
    mix = StyleMix.parse("a:0.3, b:0.7", strength=0.8, keep_colour=True)
    expected = load(small_model).stylize(np.ascontiguousarray(portrait[:90, :120]), mix)
    assert np.array_equal(read_picture(painted), expected)
    status, painted = call(server, f"{query}&as=jpeg&quality=95", data)
    assert painted.startswith(b"\xff\xd8")
    assert np.abs(read_picture(painted).astype(int) - expected).mean() < 12


@pytest.mark.parametrize(
    ("path", "body", "status", "wrong"),
    [
        ("api/image", b"no picture", 400, "no picture that can be read"),
        ("api/image", jpeg()[:300], 400, "the picture"),
        ("api/image", jpeg(width=8, height=8), 400, "8x8"),
        ("api/image?mix=zz", jpeg(), 400, "unknown style 'zz'"),
        ("api/image?strength=7", jpeg(), 400, "strength"),
        ("api/image?strength=strong", jpeg(), 400, "strength"),
        ("api/image?colour=red", jpeg(), 400, "unknown control colour"),
        ("api/image?lines=240", jpeg(), 400, "unknown control lines"),
        ("api/image?as=gif", jpeg(), 400, "png or jpeg or webp"),
        ("api/image", bytes(MAX_IMAGE_BYTES + 1), 413, "longer than"),
        ("api/mix", b"[1, 2]", 405, ""),
    ],
)
def test_refused_posts(server: PageServer, path: str, body: bytes, status: int, wrong: str):
    got, answer = call(server, path, body)
    assert got == status, answer
    if wrong:
        assert wrong in json.loads(answer)["error"]


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (b"[1, 2]", "no JSON object"),
        (b"{", "no JSON object"),
        (b"[" * 60_000, "no JSON object"),
        (b'{"mix": {"zz": 1}}', "unknown style 'zz'"),
        (b'{"mix": {"a": "much"}}', "share of a"),
        (b'{"mix": {"a": 1e999}}', "share of a"),
        (b'{"mix": 3}', "mix is 3"),
        (b'{"steady": null}', "steady is None"),
        (b'{"steady": 1.5}', "steadiness"),
        (b'{"keep_colour": 1}', "keep_colour is 1"),
        (b'{"model": 3}', "model is 3"),
        (b'{"model": "/etc/passwd"}', "unknown model"),
        (b'{"lines": 5}', "working size"),
        (b'{"format": "gif"}', "format is 'gif'"),
        (b'{"format": ["jpeg"]}', "format is"),
        (b'{"quality": 0}', "quality is 0"),
        (b'{"quality": true}', "quality is True"),
        (b'{"volume": 1}', "unknown control volume"),
        (b'{"strength": 1, "mix": {"zz": 1}}', "unknown style"),
    ],
)
def test_refused_changes_change_nothing(server: PageServer, body: bytes, wrong: str):
    before = fetch_json(server, "api/mix")
    status, answer = call(server, "api/mix", body, "PUT")
    assert status == 400
    assert wrong in json.loads(answer)["error"]
    assert fetch_json(server, "api/mix") == before


def test_the_mix_moves_one_session_or_all(server: PageServer):
    with open_socket(server, "ws/camera") as one, open_socket(server, "ws/camera") as other:
        number = receive_json(one, "hello")["session"]
        receive_json(other, "hello")
        changed = fetch_json(server, f"api/mix?session={number}", {"mix": "b:1, c:3", "strength": 0.5}, "PUT")
        assert changed["mix"] == {"b": 0.25, "c": 0.75}
        assert receive_json(one, "controls")["controls"] == changed
        assert fetch_json(server, f"api/mix?session={number}") == changed
        assert fetch_json(server, "api/mix")["mix"] == {"a": 1.0}
        fetch_json(server, "api/mix", {"mix": {"b": 1}}, "PUT")
        for socket in (one, other):  # the other had not heard of the first change
            assert receive_json(socket, "controls")["controls"]["mix"] == {"b": 1.0}
        assert fetch_json(server, "api/status")["cameras"] == 2
    status, answer = call(server, "api/mix?session=99", {"strength": 1}, "PUT")
    assert status == 400
    assert "no session 99" in json.loads(answer)["error"]
    with open_socket(server, "ws/camera") as late:
        assert receive_json(late, "hello")["controls"]["mix"] == {
            "b": 1.0
        }  # new sessions start where the server stands
    fetch_json(server, "api/mix", {"mix": {"a": 1}}, "PUT")


def test_requests_are_answered_while_frames_are_painted(small_model: Path):
    gate, painting = threading.Event(), threading.Event()

    def hold() -> None:
        painting.set()
        gate.wait(PATIENCE)

    with running(ServeSettings(engines=SlowEngines(small_model, hold))) as server:
        answers: list[tuple[int, bytes]] = []
        thread = threading.Thread(target=lambda: answers.append(call(server, "api/image", jpeg())), daemon=True)
        thread.start()
        try:
            assert painting.wait(PATIENCE)
            assert fetch_json(server, "api/status")["device"] == "cpu"
            assert not answers
        finally:
            gate.set()
            thread.join(PATIENCE)
        assert answers[0][0] == 200


@pytest.fixture(scope="module")
def guarded(small_model: Path) -> Iterator[PageServer]:
    with running(ServeSettings(engines=Engines(small_model), access=Access.to("0.0.0.0", TOKEN))) as it:
        yield it


PATHS = ("", "main.js", "api/status", "api/mix", "absent")


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_served(guarded: PageServer, path: str):
    for attempt in (path, f"{path}?token=wrong-horse", f"{path}?token=", f"{path}?token=%FF"):
        status, answer = call(guarded, attempt)
        assert status == 401
        assert "token" in json.loads(answer)["error"]
    assert call(guarded, path, Authorization="Bearer correct-horse-")[0] == 401
    assert call(guarded, path, Cookie=f"videonst-{guarded.port}=wrong")[0] == 401


def test_the_token_comes_as_link_header_or_cookie(guarded: PageServer):
    assert call(guarded, f"api/status?token={TOKEN}")[0] == 200
    assert call(guarded, "api/status", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert call(guarded, "api/status", Cookie=f"videonst-{guarded.port}={TOKEN}")[0] == 200


def test_the_link_leaves_a_cookie_and_no_token_in_the_address(guarded: PageServer):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=PATIENCE)
    try:
        connection.request("GET", f"/?token={TOKEN}")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 303
        assert TOKEN not in answer.headers["location"]
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}
        connection.request("GET", "/", headers={"Cookie": cookie.split(";")[0]})
        assert connection.getresponse().status == 200
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["ws/camera", "ws/source"])
def test_sockets_need_the_token_too(guarded: PageServer, path: str):
    for attempt in (path, f"{path}?token=wrong"):
        with pytest.raises(InvalidStatus) as refused, open_socket(guarded, attempt):
            pass
        assert refused.value.response.status_code == 401
    with open_socket(guarded, "ws/camera", Authorization=f"Bearer {TOKEN}") as socket:
        assert receive_json(socket, "hello")["kind"] == "camera"


FOREIGN = (
    "http://evil.example",
    "null",
    "http://127.0.0.1",
    "http://127.0.0.1:1",
    "http://[",
    "https://127.0.0.1.evil.example",
)


@pytest.mark.parametrize("origin", FOREIGN)
def test_pages_of_others_are_refused(server: PageServer, origin: str):
    with pytest.raises(InvalidStatus) as refused, open_socket(server, "ws/camera", Origin=origin):
        pass
    assert refused.value.response.status_code == 403
    assert call(server, "api/mix", {"strength": 0.3}, "PUT", Origin=origin)[0] == 403
    assert call(server, "api/image", jpeg(), Origin=origin)[0] == 403
    assert fetch_json(server, "api/mix")["strength"] == 1


def test_the_own_page_is_not_refused(server: PageServer):
    origin = f"http://127.0.0.1:{server.port}"
    with open_socket(server, "ws/camera", Origin=origin) as socket:
        receive_json(socket, "hello")
    assert call(server, "api/mix", {"strength": 1}, "PUT", Origin=origin)[0] == 200


def test_a_name_rebound_to_this_machine_is_refused(server: PageServer):
    assert call(server, "api/status", Host=f"evil.example:{server.port}")[0] == 403
    assert call(server, "api/status", Host="")[0] in (400, 403)
    assert call(server, "api/status", Host=f"localhost:{server.port}")[0] == 200


def test_other_machines_need_a_token():
    assert Access.to("127.0.0.1").token is None
    assert Access.to("localhost").token is None
    assert Access.to("::1").token is None
    assert Access.to("127.0.0.1", TOKEN).token == TOKEN
    made_up = {Access.to(host).token for host in ("0.0.0.0", "::", "192.168.1.5", "studio.example")}
    assert len(made_up) == 4
    assert all(token is not None and len(token) >= 32 for token in made_up)
