"""The WebSockets: frames, pacing, limits, independence, viewers of the server's source. Against a real server."""

import asyncio
import contextlib
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from web_server import (
    PATIENCE,
    SlowEngines,
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
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from videonst.engines.onnx import OnnxEngine
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.live.capture import Capture
from videonst.live.painter import Engines
from videonst.sources.live import open_recording
from videonst.styles import StyleMix
from videonst.web import sessions
from videonst.web.app import ServeSettings
from videonst.web.picture import decode, encode
from videonst.web.protocol import (
    FAILED,
    FULL,
    GONE,
    IDLE,
    MALFORMED,
    MAX_CHANGES_PER_SECOND,
    MAX_FRAMES_PER_SECOND,
    MAX_MESSAGE_BYTES,
    TOO_BIG,
    SessionError,
    frame_message,
)
from videonst.web.server import PageServer


@pytest.fixture(scope="module")
def server(small_model: Path) -> Iterator[PageServer]:
    """Frames are painted one by one: without steadiness an answer depends on its frame only."""
    with running(ServeSettings(engines=Engines(small_model), max_sessions=3)) as it:
        yield it


@pytest.fixture(scope="module")
def engine(small_model: Path) -> OnnxEngine:
    return OnnxEngine(small_model, "cpu")


def painted(engine: OnnxEngine, data: bytes, mix: str, **options: float) -> bytes:
    """What the library makes of a frame, encoded as the server does by default."""
    frame = Frame(decode(data, max_pixels=1 << 20))
    return encode(engine.stylize(frame, StyleMix.parse(mix, **options)).pixels, "jpeg", 80)


def camera(server: PageServer) -> "ClosingSocket":
    return ClosingSocket(server, "ws/camera")


class ClosingSocket:
    """A session without steadiness, past its greeting."""

    def __init__(self, server: PageServer, path: str) -> None:
        self._opening = open_socket(server, path)

    def __enter__(self) -> ClientConnection:
        socket = self._opening.__enter__()
        receive_json(socket, "hello")
        send_controls(socket, steady=0)
        receive_json(socket, "controls")
        return socket

    def __exit__(self, *error: object) -> None:
        self._opening.__exit__(*error)


def end_of(socket: ClientConnection) -> ConnectionClosed:
    """How the server ends the session; messages before are passed over."""
    deadline = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            socket.recv(timeout=PATIENCE)
    except ConnectionClosed as closed:
        return closed
    raise AssertionError("the session was not ended")


def closed_with(socket: ClientConnection) -> tuple[int, str]:
    """Code and reason with which the server ends the session."""
    told = end_of(socket).rcvd
    assert told is not None, "the session was not ended with a reason"
    return told.code, told.reason


def test_frames_come_back_painted_in_order(server: PageServer, engine: OnnxEngine):
    with camera(server) as socket:
        for number in range(5):
            socket.send(frame_message(number, jpeg(number)))
            shown = receive_frame(socket)
            assert shown.sequence == number
            assert shown.picture == painted(engine, jpeg(number), "a")
            assert shown.original == b""
            assert 0 <= shown.waited < PATIENCE
            assert 0 < shown.painted < PATIENCE


def test_a_change_takes_effect_on_the_next_frame(server: PageServer, engine: OnnxEngine):
    with camera(server) as socket:
        for mix, strength in (
            ({"b": 1}, 1.0),
            ({"b": 0.5, "c": 0.25}, 0.7),
            ({}, 1.0),
            ({"a": 1}, 0.0),
            ({"c": 1}, 1.5),
        ):
            send_controls(socket, mix=mix, strength=strength)
            socket.send(frame_message(1, jpeg()))
            revision = receive_json(socket, "controls")["revision"]
            shown = receive_frame(socket)
            assert shown.revision == revision
            text = ", ".join(f"{name}:{share}" for name, share in mix.items()) or "a"
            assert shown.picture == painted(engine, jpeg(), text, strength=strength if mix else 0)


def test_format_quality_and_working_size(server: PageServer):
    with camera(server) as socket:
        sizes = []
        for changes in ({"format": "webp"}, {"format": "jpeg", "quality": 95}, {"quality": 30}, {"lines": 64}):
            send_controls(socket, **changes)
            socket.send(frame_message(1, jpeg(width=256, height=160)))
            shown = receive_frame(socket)
            assert read_picture(shown.picture).shape == (160, 256, 3)  # whatever size it is painted at
            assert shown.picture[:4] == (b"RIFF" if changes.get("format") == "webp" else b"\xff\xd8\xff\xe0")
            sizes.append(len(shown.picture))
        assert sizes[1] > 2 * sizes[2]
        assert fetch_json(server, "api/status")["sessions"][0]["painted_with"]["lines"] == 64


def test_sessions_are_independent(server: PageServer, engine: OnnxEngine):
    with camera(server) as one, camera(server) as other:
        send_controls(one, mix={"b": 1})
        receive_json(one, "controls")
        for socket in (one, other):
            socket.send(frame_message(7, jpeg()))
        assert receive_frame(one).picture == painted(engine, jpeg(), "b")
        assert receive_frame(other).picture == painted(engine, jpeg(), "a")


def test_a_refused_change_leaves_the_session_running(server: PageServer, engine: OnnxEngine):
    with camera(server) as socket:
        send_controls(socket, mix={"zz": 1})
        assert "unknown style 'zz'" in receive_json(socket, "error")["message"]
        assert receive_json(socket, "controls")["controls"]["mix"] == {"a": 1.0}
        socket.send(frame_message(1, jpeg()))
        assert receive_frame(socket).picture == painted(engine, jpeg(), "a")


MALFORMED_MESSAGES = {
    "no sequence number": b"\1\2",
    "no picture": frame_message(1),
    "noise": frame_message(1, bytes(range(256))),
    "half a picture": frame_message(1, jpeg()[:200]),
    "too small": frame_message(1, jpeg(width=8, height=8)),
    "bomb": frame_message(1, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0\0\xff\xff" * 2 + bytes(40)),
    "no JSON": "{",
    "deep JSON": "[" * 100_000,
    "no object": "[1]",
    "no type": "{}",
    "type of a wrong kind": '{"type": 1}',
    "unknown type": '{"type": "shutdown"}',
}


@pytest.mark.parametrize("message", MALFORMED_MESSAGES.values(), ids=MALFORMED_MESSAGES)
def test_malformed_messages_close_that_session_and_no_other(
    server: PageServer, engine: OnnxEngine, message: bytes | str
):
    with camera(server) as good, camera(server) as bad:
        bad.send(message)
        code, reason = closed_with(bad)
        assert code == MALFORMED
        assert reason
        good.send(frame_message(1, jpeg()))
        assert receive_frame(good).picture == painted(engine, jpeg(), "a")


def test_a_message_that_is_too_big_closes_the_session(server: PageServer):
    with camera(server) as socket:
        with contextlib.suppress(ConnectionClosed):  # it is refused while it is being sent
            socket.send(frame_message(1, bytes(MAX_MESSAGE_BYTES)))
        told = end_of(socket).rcvd
        assert told is None or told.code == TOO_BIG  # lost where the connection is reset under what is still being sent
    with camera(server) as other:
        other.send(frame_message(1, jpeg()))
        receive_frame(other)


def test_a_flood_of_changes_closes_the_session(server: PageServer):
    with camera(server) as socket:
        with contextlib.suppress(ConnectionClosed):
            for number in range(20 * MAX_CHANGES_PER_SECOND):
                send_controls(socket, strength=number % 2)
        code, reason = closed_with(socket)
        assert (code, str(MAX_CHANGES_PER_SECOND) in reason) == (MALFORMED, True)


def test_reasons_fit_into_a_close_frame():
    reason = SessionError(MALFORMED, "ü" * 200).reason
    assert len(reason.encode()) <= 123
    assert set(reason) == {"ü"}


def test_never_more_than_two_frames_in_flight(small_model: Path):
    gate = threading.Event()
    with running(ServeSettings(engines=SlowEngines(small_model, lambda: gate.wait(PATIENCE) and None))) as server:
        try:
            with camera(server) as eager, camera(server) as patient:
                for number in range(2):
                    patient.send(frame_message(number, jpeg()))
                for number in range(3):
                    eager.send(frame_message(number, jpeg()))
                code, reason = closed_with(eager)
                assert (code, "2 frames in flight" in reason) == (MALFORMED, True)
                gate.set()
                assert [receive_frame(patient).sequence for _ in range(2)] == [0, 1]
        finally:
            gate.set()


def test_fast_senders_are_slowed_down(server: PageServer):
    frames = MAX_FRAMES_PER_SECOND // 2
    with camera(server) as socket:
        began = time.monotonic()
        for number in range(frames):
            socket.send(frame_message(number, jpeg(width=16, height=16)))
            receive_frame(socket)
        assert time.monotonic() - began >= 0.9 * (frames - 2) / MAX_FRAMES_PER_SECOND


def test_places_for_cameras(server: PageServer):
    with camera(server), camera(server), camera(server) as third:
        with open_socket(server, "ws/camera") as late:
            code, reason = closed_with(late)
            assert (code, "all 3 camera places are taken" in reason) == (FULL, True)
        third.close()
        wait_until(lambda: fetch_json(server, "api/status")["cameras"] == 2)
        with camera(server) as socket:
            socket.send(frame_message(1, jpeg()))
            receive_frame(socket)
    wait_until(lambda: fetch_json(server, "api/status")["cameras"] == 0)


def test_idle_cameras_give_their_place_back(small_model: Path):
    # Long enough for the first frame to be in time on a busy machine.
    with running(ServeSettings(engines=Engines(small_model), idle_seconds=3)) as server, camera(server) as socket:
        socket.send(frame_message(1, jpeg()))
        receive_frame(socket)
        send_controls(socket, strength=0.5)  # turning knobs is not sending frames
        code, reason = closed_with(socket)
        assert (code, "no frame for 3 seconds" in reason) == (IDLE, True)
        wait_until(lambda: fetch_json(server, "api/status")["cameras"] == 0)


def test_a_failing_device_is_told_and_disturbs_no_other_request(small_model: Path):
    failing = threading.Event()

    def fail() -> None:
        if failing.is_set():
            raise VideoNSTError("out of memory")

    with running(ServeSettings(engines=SlowEngines(small_model, fail))) as server, camera(server) as socket:
        failing.set()
        socket.send(frame_message(1, jpeg()))
        assert closed_with(socket) == (FAILED, "out of memory")
        failing.clear()
        with camera(server) as again:
            again.send(frame_message(1, jpeg()))
            receive_frame(again)


def test_a_browser_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sessions, "SEND_SECONDS", 0.01)
    with pytest.raises(SessionError, match="took no data") as ended:
        asyncio.run(sessions.within_send_time(asyncio.sleep(PATIENCE)))
    assert ended.value.code == IDLE


# --- the server's own source -----------------------------------------------------------------------------------------


class CountingCaptures:
    """Opens a looped recording; counts how many are open."""

    def __init__(self, path: Path) -> None:
        self.opened: list[Capture] = []
        self._open: Callable[[], object] = functools.partial(open_recording, path, loop=True)

    def __call__(self) -> Capture:
        capture = Capture(self._open())  # type: ignore[arg-type]
        self.opened.append(capture)
        return capture

    @property
    def running(self) -> int:
        return sum(not capture.box.closed for capture in self.opened)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of 64 x 48, which stands in for a camera at 30 frames a second."""
    path = tmp_path_factory.mktemp("still") / "still.png"
    path.write_bytes(encode(read_picture(jpeg(3)), "png", 1))
    return path


def acknowledge(socket: ClientConnection) -> bytes:
    shown = receive_frame(socket)
    socket.send(frame_message(shown.sequence))
    return shown.picture


def test_several_viewers_of_one_source(small_model: Path, still: Path):
    captures = CountingCaptures(still)
    with running(ServeSettings(engines=Engines(small_model), open_capture=captures, source_name="still")) as server:
        assert fetch_json(server, "api/status")["source"] == "still"
        assert not captures.opened  # nobody looks
        with open_socket(server, "ws/source") as one, open_socket(server, "ws/source") as other:
            assert receive_json(one, "hello")["kind"] == "viewer"
            before = [acknowledge(socket) for socket in (one, other)]
            assert captures.running == 1
            send_controls(one, mix={"b": 1}, steady=0)
            revision = receive_json(other, "controls")["revision"]  # everybody's sliders move
            for socket, old in zip((one, other), before, strict=True):
                shown = receive_frame(socket)
                while shown.revision < revision:
                    socket.send(frame_message(shown.sequence))
                    shown = receive_frame(socket)
                assert shown.picture != old
            assert fetch_json(server, "api/mix")["mix"] == {"b": 1.0}
        wait_until(lambda: captures.running == 0)  # the last one has left
        with open_socket(server, "ws/source") as again:
            acknowledge(again)
            assert len(captures.opened) == 2


def test_viewers_pace_themselves(small_model: Path, still: Path):
    captures = CountingCaptures(still)
    with (
        running(ServeSettings(engines=Engines(small_model), open_capture=captures)) as server,
        open_socket(server, "ws/source") as slow,
        open_socket(server, "ws/source") as quick,
    ):
        first, second = receive_frame(slow), receive_frame(slow)
        numbers = [receive_frame(quick) for _ in range(2)]
        for shown in numbers:
            quick.send(frame_message(shown.sequence))
        last = 0
        while last < second.sequence + 10:  # the others go on
            shown = receive_frame(quick)
            quick.send(frame_message(shown.sequence))
            last = shown.sequence
        with pytest.raises(TimeoutError):
            slow.recv(timeout=0.2)
        slow.send(frame_message(first.sequence))
        assert receive_frame(slow).sequence >= last - 1  # the newest, not the next
        slow.send(frame_message(12345))
        assert closed_with(slow)[0] == MALFORMED
        quick.send(frame_message(receive_frame(quick).sequence))


def test_the_original_comes_beside_where_wanted(small_model: Path, still: Path):
    captures = CountingCaptures(still)
    with (
        running(ServeSettings(engines=Engines(small_model), open_capture=captures)) as server,
        open_socket(server, "ws/source") as plain,
        open_socket(server, "ws/source") as curious,
    ):
        curious.send(json.dumps({"type": "original", "wanted": True}))
        shown = receive_frame(curious)
        while not shown.original:
            curious.send(frame_message(shown.sequence))
            shown = receive_frame(curious)
        assert np.abs(read_picture(shown.original).astype(int) - read_picture(still.read_bytes())).mean() < 4
        assert receive_frame(plain).original == b""
        curious.send(json.dumps({"type": "original", "wanted": 1}))
        assert closed_with(curious)[0] == MALFORMED


def test_a_source_that_fails_is_told(small_model: Path):
    def unplugged() -> Capture:
        raise InputError("camera 0 does not open")

    settings = ServeSettings(engines=Engines(small_model), open_capture=unplugged, source_name="camera 0")
    with running(settings) as server:
        for _ in range(2):  # who comes later tries again
            with open_socket(server, "ws/source") as socket:
                assert closed_with(socket) == (FAILED, "camera 0 does not open")


def test_without_a_source_there_is_nothing_to_view(server: PageServer):
    with open_socket(server, "ws/source") as socket:
        code, reason = closed_with(socket)
        assert (code, "--source" in reason) == (GONE, True)
