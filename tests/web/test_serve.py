"""`videonst serve` and the server around the application: ports, certificates, tokens, the end."""

import json
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.request
from importlib import util
from pathlib import Path

import pytest
from typer.testing import CliRunner
from web_server import PATIENCE, jpeg, open_socket, receive_json, running
from websockets.exceptions import ConnectionClosed

from videonst.cli import app
from videonst.errors import InputError, VideoNSTError
from videonst.live.painter import Engines
from videonst.web import server as server_module
from videonst.web.app import ServeSettings
from videonst.web.server import PageServer


async def nothing(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    """An application for servers that never answer."""


def test_a_taken_port_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot listen on 127\.0\.0\.1 port {port} .*--port"):
            PageServer(nothing, "127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("203.0.113.7", 0), ("::zz", 0)])
def test_what_cannot_be_bound_is_refused(host: str, port: int):
    with pytest.raises(InputError, match=r"port"):
        PageServer(nothing, host, port)


def test_certificates_that_do_not_fit_are_refused(tmp_path: Path):
    noise = tmp_path / "noise.pem"
    noise.write_text("no certificate")
    for certificate, key, wrong in (
        (tmp_path / "absent.pem", None, "there is no file"),
        (noise, tmp_path / "absent.pem", "there is no file"),
        (noise, None, "no certificate with its key"),
        (None, noise, "a key without its certificate"),
    ):
        with pytest.raises(InputError, match=wrong):
            PageServer(nothing, "127.0.0.1", 0, certificate=certificate, key=key)


def test_https(small_model: Path, tmp_path: Path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 "
        f"-keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    trust = ssl.create_default_context(cafile=str(certificate))
    with running(ServeSettings(engines=Engines(small_model)), certificate=certificate, key=key) as server:
        assert server.link() == f"https://127.0.0.1:{server.port}/"
        with urllib.request.urlopen(server.link() + "api/status", timeout=PATIENCE, context=trust) as answer:
            assert json.load(answer)["cameras"] == 0


@pytest.mark.parametrize(
    ("host", "token", "link"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:{}/"),
        ("localhost", "abc-def", "http://localhost:{}/?token=abc-def"),
        ("0.0.0.0", "abc-def", "http://192.0.2.77:{}/?token=abc-def"),
    ],
)
def test_the_link_can_be_opened(host: str, token: str | None, link: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_module, "_own_address", lambda: "192.0.2.77")
    server = PageServer(nothing, host, 0)
    server.close()
    assert server.link(token) == link.format(server.port)


def serve(*args: object, monkeypatch: pytest.MonkeyPatch) -> tuple[list[ServeSettings], str]:
    """Runs the verb with a server that ends at once; what it was given, and what was printed."""
    from videonst.web import app as web_app

    given: list[ServeSettings] = []
    create_app = web_app.create_app

    def remember(settings: ServeSettings):  # type: ignore[no-untyped-def]
        given.append(settings)
        return create_app(settings)

    monkeypatch.setattr(web_app, "create_app", remember)
    monkeypatch.setattr(PageServer, "run", PageServer.close)
    done = CliRunner().invoke(app, ["serve", *map(str, args)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return given, done.stderr


def test_local_by_default(small_model: Path, monkeypatch: pytest.MonkeyPatch):
    [settings], printed = serve(
        "--model", small_model, "--port", 0, "-s", "b", "--strength", 0.5, monkeypatch=monkeypatch
    )
    assert printed.startswith("http://127.0.0.1:")
    assert "token" not in printed
    assert settings.access.token is None
    assert settings.access.hosts is not None
    assert "localhost" in settings.access.hosts
    assert settings.new_controls is not None
    mix = settings.new_controls().read().mix
    assert (mix.shares, mix.strength) == ((("b", 1.0),), 0.5)
    assert settings.open_capture is None


def test_for_other_machines_a_token_is_made_up_and_printed(small_model: Path, monkeypatch: pytest.MonkeyPatch):
    [settings], printed = serve("--model", small_model, "--port", 0, "--host", "0.0.0.0", monkeypatch=monkeypatch)
    assert settings.access.token is not None
    assert f"/?token={settings.access.token} " in printed


def test_a_recording_to_show(small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    picture = tmp_path / "still.jpg"
    picture.write_bytes(jpeg())
    [settings], _ = serve("--model", small_model, "--port", 0, "--source", picture, monkeypatch=monkeypatch)
    assert settings.source_name == "still.jpg"
    assert settings.open_capture is not None
    with settings.open_capture() as capture:
        arrival = capture.box.take(PATIENCE)
        assert arrival is not None
        assert arrival.item.pixels.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("args", "wrong"),
    [
        (("--source", "absent.mp4"), "absent.mp4"),
        (("--camera", "front"), "front"),
        (("--camera", "0", "--source", "absent.mp4"), "both"),
        (("--style", "zz"), "unknown style 'zz'"),
        (("--strength", "7"), "strength"),
        (("--token", "short"), "token"),
        (("--token", "with; a semicolon"), "token"),
        (("--lines", "many"), "many"),
        (("--model", "fats"), "unknown model 'fats'"),
        (("--device", "abacus"), "abacus"),
        (("--tls-key", "key.pem"), "certificate"),
    ],
)
def test_bad_input_is_one_error(small_model: Path, args: tuple[str, ...], wrong: str, monkeypatch: pytest.MonkeyPatch):
    model = () if "--model" in args else ("--model", small_model)
    with pytest.raises(InputError, match=wrong) as refused:
        serve("--port", 0, *model, *args, monkeypatch=monkeypatch)
    assert "\n" not in str(refused.value)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch):
    find_spec = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "uvicorn" else find_spec(name))
    with pytest.raises(VideoNSTError, match=r"needs uvicorn; run: pip install uvicorn"):
        serve(monkeypatch=monkeypatch)


def test_the_command_line_does_not_load_the_server():
    code = (
        "import sys, videonst, videonst.cli; print(sorted({'starlette', 'uvicorn', 'websockets'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_it_ends_with_sessions_open(small_model: Path):
    """As at Ctrl-C; `running` checks that it ends."""
    with running(ServeSettings(engines=Engines(small_model))) as server, open_socket(server, "ws/camera") as camera:
        receive_json(camera, "hello")
        server.stop()
        with pytest.raises(ConnectionClosed):
            camera.recv(timeout=PATIENCE)
