"""The page's server in a thread, on a free port, and clients that never wait for ever."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import cv2
import numpy as np
from websockets.sync.client import ClientConnection, connect

from videonst.engines import Engine, EngineDescription
from videonst.frame import Frame, Pixels
from videonst.live.painter import Engines
from videonst.styles import StyleMix
from videonst.web.app import ServeSettings, create_app
from videonst.web.protocol import Shown
from videonst.web.server import PageServer

PATIENCE = 30.0
"""Seconds that anything may take before a test fails."""


class SlowEngines(Engines):
    """Engines that call `before` ahead of every frame: to wait, to count, or to fail."""

    def __init__(self, model: Path, before: Callable[[], None]) -> None:
        super().__init__(model)
        self._before = before
        self._slow: dict[str, Engine] = {}

    def get(self, model: str) -> Engine:
        return self._slow.setdefault(model, _SlowEngine(super().get(model), self._before))


class _SlowEngine:
    def __init__(self, engine: Engine, before: Callable[[], None]) -> None:
        self._engine = engine
        self._before = before

    @property
    def description(self) -> EngineDescription:
        return self._engine.description

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        self._before()
        return self._engine.stylize(frame, mix)


@contextmanager
def running(settings: ServeSettings, port: int = 0, **tls: Path) -> Iterator[PageServer]:
    """The server, answering; it has ended when the block is left."""
    server = PageServer(create_app(settings), "127.0.0.1", port, **tls)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server does not end"


def wait_until(condition: Callable[[], Any], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def call(
    server: PageServer, path: str, body: bytes | dict[str, Any] | None = None, method: str | None = None, **headers: str
) -> tuple[int, bytes]:
    """Status and body of a request; a dictionary is sent as JSON."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/{path}", data, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def fetch_json(server: PageServer, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    status, data = call(server, path, body, method)
    assert status == 200, data
    return json.loads(data)


@contextmanager
def open_socket(server: PageServer, path: str, **headers: str) -> Iterator[ClientConnection]:
    address = f"ws://127.0.0.1:{server.port}/{path}"
    with connect(
        address, additional_headers=headers, open_timeout=PATIENCE, close_timeout=5, max_size=None, compression=None
    ) as socket:
        yield socket


def receive_json(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of that type; others, frames too, are passed over."""
    while True:
        message = socket.recv(timeout=PATIENCE)
        if isinstance(message, str) and json.loads(message)["type"] == kind:
            return json.loads(message)


def receive_frame(socket: ClientConnection) -> Shown:
    """The next frame; text is passed over."""
    while True:
        message = socket.recv(timeout=PATIENCE)
        if isinstance(message, bytes):
            return Shown.read(message)


def send_controls(socket: ClientConnection, **changes: Any) -> None:
    socket.send(json.dumps({"type": "controls", **changes}))


def jpeg(seed: int = 0, width: int = 64, height: int = 48) -> bytes:
    """A picture of coloured noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(noise, (width, height)))[1].tobytes()


def read_picture(data: bytes) -> Pixels:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
