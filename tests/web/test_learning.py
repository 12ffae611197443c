"""Learning a style from an uploaded painting, against a real server with a stub in place of `videonst learn`."""

import asyncio
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from web_server import (
    call,
    fetch_json,
    jpeg,
    open_socket,
    read_picture,
    receive_frame,
    receive_json,
    running,
    send_controls,
    wait_until,
)

from videonst.api import load
from videonst.engines.metadata import read_metadata
from videonst.live.painter import Engines
from videonst.web import workshop
from videonst.web.access import Access
from videonst.web.app import ServeSettings, create_app
from videonst.web.server import PageServer
from videonst.web.workshop import LearnOptions

STUB = (sys.executable, str(Path(__file__).parent.parent / "learn_stub.py"))
PAINTING = jpeg(3, 200, 160)

MEEK = 150.0
"""Seconds that a process of low priority may take beside others."""


@pytest.fixture
def server(small_model: Path, tmp_path: Path) -> Iterator[PageServer]:
    pytest.importorskip("onnx", reason="needs the [train] extra")
    pytest.importorskip("torch", reason="needs the [train] extra")
    options = LearnOptions(folder=tmp_path, command=STUB)
    settings = ServeSettings(engines=Engines(small_model), access=Access.to("127.0.0.1"), learning=options)
    with running(settings) as it:
        yield it


def coarse(picture: np.ndarray) -> np.ndarray:
    """Mean colours of 4 x 3 fields."""
    return cv2.resize(picture.astype(np.float32), (4, 3), interpolation=cv2.INTER_AREA)


def state(server: PageServer) -> dict[str, Any]:
    return fetch_json(server, "api/learn")  # type: ignore[no-any-return]


def learn(server: PageServer, name: str = "mine") -> None:
    status, answer = call(server, f"api/learn?name={name}&minutes=2&strokes=large", PAINTING)
    assert status == 202, answer
    wait_until(lambda: state(server)["progress"] or state(server)["state"] != "learning", MEEK)


def test_a_painting_becomes_a_style_of_every_session(server: PageServer, tmp_path: Path, small_model: Path):
    assert state(server) == {
        "available": True, "install": None, "state": "idle", "name": "", "error": None, "progress": None,
        "preview": False, "model": None,
    }  # fmt: skip
    with open_socket(server, "ws/camera") as socket:
        hello = receive_json(socket, "hello")
        send_controls(socket, mix={"b": 1}, model=str(small_model), steady=0)
        learn(server)
        assert state(server)["progress"]["seconds_left"] == 61
        status, picture = call(server, "api/learn/preview")
        assert (status, read_picture(picture).shape) == (200, (8, 8, 3))
        status, answer = call(server, "api/learn?name=second", PAINTING)
        assert status == 409
        assert json.loads(answer)["error"] == "'mine' is being learnt; wait for its end, or end it"
        socket.send((1).to_bytes(4, "big") + jpeg())  # pictures go on meanwhile
        assert receive_frame(socket).picture
        fetch_json(server, "api/learn?keep=true", method="DELETE")
        wait_until(lambda: state(server)["state"] == "done", MEEK)
        receive_json(socket, "styles")
        controls = fetch_json(server, f"api/mix?session={hello['session']}")
        assert (controls["mix"], controls["model"]) == ({"b": 1.0}, "auto")
        send_controls(socket, mix={"mine": 1})
        wait_until(lambda: fetch_json(server, f"api/mix?session={hello['session']}")["mix"] == {"mine": 1.0})
        socket.send((2).to_bytes(4, "big") + jpeg())
        painted = read_picture(receive_frame(socket).picture)
    out = tmp_path / "styles-1.onnx"
    model = load(out, device="cpu")
    expected, other = (coarse(model.stylize(read_picture(jpeg()), style)) for style in ("mine", "b"))
    assert np.abs(coarse(painted) - expected).mean() < 12 < np.abs(coarse(painted) - other).mean()  # JPEG
    assert [style["name"] for style in fetch_json(server, "api/styles")] == ["a", "b", "c", "mine"]
    assert fetch_json(server, "api/status")["models"] == ["auto", str(out)]
    assert call(server, "api/learn/model") == (200, out.read_bytes())
    told = json.loads((tmp_path / "styles-1.learning" / "options.json").read_text())
    assert (told["into"], told["minutes"], told["stroke_size"]) == (str(small_model), "2.0", "large")
    assert told["painting"].endswith("mine.jpg")  # what the file will say that it was learnt from
    assert told["int8"] == "False"  # the server was given this very file
    assert told["nice"] >= workshop.NICENESS or not hasattr(workshop.os, "setpriority")
    learn(server, "more")  # into the file that has the first
    fetch_json(server, "api/learn?keep=true", method="DELETE")
    wait_until(lambda: state(server)["state"] == "done", MEEK)
    assert read_metadata(out).style_names == ("a", "b", "c", "mine", "more")
    assert [style["name"] for style in fetch_json(server, "api/styles")][-1] == "more"


def test_cancelling_and_failing_change_nothing(server: PageServer, tmp_path: Path):
    learn(server)
    fetch_json(server, "api/learn?keep=false", method="DELETE")
    wait_until(lambda: state(server)["state"] == "cancelled", MEEK)
    assert list(tmp_path.iterdir()) == []
    learn(server, "broken")
    wait_until(lambda: state(server)["state"] == "failed", MEEK)
    assert state(server)["error"] == "this painting cannot be learnt"
    assert state(server)["model"] is None
    assert call(server, "api/learn/model")[0] == 404
    assert [style["name"] for style in fetch_json(server, "api/styles")] == ["a", "b", "c"]
    assert not list(tmp_path.glob("*.onnx"))


def test_a_server_that_ends_takes_its_learning_along(small_model: Path, tmp_path: Path, caplog):
    pytest.importorskip("onnx", reason="needs the [train] extra")
    pytest.importorskip("torch", reason="needs the [train] extra")
    options = LearnOptions(folder=tmp_path, command=STUB)
    with running(ServeSettings(engines=Engines(small_model), learning=options)) as server:
        learn(server)
        assert state(server)["state"] == "learning"
    assert list(tmp_path.iterdir()) == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_an_upload_that_breaks_off_is_no_error(small_model: Path, tmp_path: Path):
    app = create_app(ServeSettings(engines=Engines(small_model), learning=LearnOptions(folder=tmp_path)))
    messages = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: dict[str, Any]) -> None:
        assert message.get("status", 400) == 400

    scope = {
        "type": "http", "method": "POST", "path": "/api/image", "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))


def test_a_server_in_8_bits_learns_and_paints_in_8_bits(server: PageServer, tmp_path: Path, monkeypatch):
    """Engines of shipped models on CPUs are in 8 bits; here one says so."""
    get = Engines.get

    def described(self: Engines, model: str) -> Any:
        engine = get(self, model)
        quick = dataclasses.replace(engine.description, precision="int8")
        return SimpleNamespace(description=quick, stylize=engine.stylize)

    monkeypatch.setattr(Engines, "get", described)
    learn(server)
    assert json.loads((tmp_path / "styles-1.learning" / "options.json").read_text())["int8"] == "True"


def huge() -> bytes:
    """A PNG header that declares 20000 x 20000 pixels."""
    data = bytearray(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("query", "body", "status", "wrong"),
    [
        ("name=mine", b"no picture", 400, "this is no picture that can be read"),
        ("name=mine", jpeg(0, 64, 48), 400, "64x48; expected sides of 128"),
        ("name=mine", huge(), 400, "20000x20000; expected at most"),
        ("name=mine", b"\xff" * (workshop.MAX_PAINTING_BYTES + 1), 413, "longer than"),
        ("name=a", PAINTING, 400, "there is a style 'a' already"),
        ("name=a,b", PAINTING, 400, "cannot name a style"),
        ("name=../x", PAINTING, 400, "cannot name a style"),
        ("name=mine&minutes=1e9", PAINTING, 400, "expected more than 0, 60 at most"),
        ("name=mine&minutes=x", PAINTING, 400, "minutes is 'x'"),
        ("name=mine&strokes=x", PAINTING, 400, "expected small, medium, large"),
        ("name=mine&more=1", PAINTING, 400, "unknown parameter more"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_is_refused(
    server: PageServer, tmp_path: Path, query: str, body: bytes, status: int, wrong: str
):
    found, answer = call(server, f"api/learn?{query}", body)
    assert (found, wrong in json.loads(answer)["error"]) == (status, True), answer
    assert state(server)["state"] == "idle"
    assert not list(tmp_path.glob("styles-*"))


def test_strangers_cannot_upload(small_model: Path, tmp_path: Path):
    options = LearnOptions(folder=tmp_path, command=STUB)
    settings = ServeSettings(
        engines=Engines(small_model), access=Access.to("0.0.0.0", "correct-horse"), learning=options
    )
    with running(settings) as server:
        assert call(server, "api/learn?name=mine", PAINTING)[0] == 401
        assert call(server, "api/learn?token=correct-horse", PAINTING, Origin="http://evil.example")[0] == 403
        assert call(server, "api/learn", method="DELETE")[0] == 401
    assert not list(tmp_path.glob("styles-*"))


def test_without_torch_the_page_is_told_what_to_install(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workshop.util, "find_spec", lambda name: None)
    with running(ServeSettings(engines=Engines(small_model), learning=LearnOptions(folder=tmp_path))) as server:
        told = state(server)
        assert (told["available"], told["install"]) == (False, "pip install 'videonst[train]'")
        status, answer = call(server, "api/learn?name=mine", PAINTING)
        assert status == 500
        assert "learning a style needs torch and torchvision and onnx; run: pip install" in json.loads(answer)["error"]
