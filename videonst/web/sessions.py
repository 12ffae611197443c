"""The two kinds of WebSocket: a browser's camera that is repainted, and a viewer of the server's own source."""

import asyncio
import itertools
import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from concurrent.futures import Executor
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from videonst.errors import InputError, VideoNSTError
from videonst.live.meter import Meter
from videonst.live.quality import Rung
from videonst.web.controls import Board
from videonst.web.frames import FramePainter
from videonst.web.protocol import (
    FAILED,
    IDLE,
    IN_FLIGHT,
    MALFORMED,
    MAX_FRAMES_PER_SECOND,
    MAX_MESSAGE_BYTES,
    ChangeLimit,
    SessionError,
    Shown,
    read_frame_message,
    read_json_message,
)

log = logging.getLogger(__name__)

SEND_SECONDS = 10.0
"""A browser that takes no bytes for so long is gone."""

_numbers = itertools.count(1)


class Session(ABC):
    """One WebSocket: its controls, both ways, and the frames that the two kinds below add.

    Args:
        socket: accepted.
        board: the controls that this session turns.

    Attributes:
        number: names the session in the HTTP API.
        kind: "camera" or "viewer".
        meter: what its frames took, from their arrival to the answer.
    """

    kind = ""

    def __init__(self, socket: WebSocket, board: Board) -> None:
        self.number = next(_numbers)
        self.board = board
        self.meter = Meter()
        self._socket = socket
        self._limit = ChangeLimit()
        self._controls_changed = asyncio.Event()
        self._styles_changed = False
        self._rung: Rung | None = None

    async def run(self) -> None:
        """Serves until the browser leaves or has to. Every refusal ends this session only, with a reason."""
        unwatch = self.board.watch(self._controls_changed.set)
        try:
            await self._send_json({"type": "hello", "session": self.number, "kind": self.kind} | self._controls_json())
            await _until_first(self._receive(), self._tell_controls(), self._frames())
        except SessionError as closed:
            await self._close(closed.code, closed.reason)
        except InputError as error:
            await self._close(MALFORMED, SessionError(MALFORMED, str(error)).reason)
        except VideoNSTError as error:
            log.error("session %d: %s", self.number, error)
            await self._close(FAILED, SessionError(FAILED, str(error)).reason)
        except WebSocketDisconnect:
            pass
        finally:
            unwatch()

    def tell_styles(self) -> None:
        """Tells the page that there are other styles and models. Call it in the event loop."""
        self._styles_changed = True
        self._controls_changed.set()

    def as_json(self) -> dict[str, Any]:
        reading = self.meter.read()
        return {
            "session": self.number,
            "kind": self.kind,
            "fps": round(reading.fps, 1),
            "delay_p50_ms": round(reading.delay_p50 * 1000, 1),
            "delay_p95_ms": round(reading.delay_p95 * 1000, 1),
            "dropped": reading.drops,
            "painted_with": None if self._rung is None else {"model": self._rung.model, "lines": self._rung.lines},
        }

    @abstractmethod
    async def _frames(self) -> None:
        """Sends what is to be shown, until the session ends."""

    @abstractmethod
    async def _frame_message(self, message: bytes, arrived: float) -> None:
        """Takes a binary message, which came at `arrived`, seconds on the monotonic clock."""

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            if message.get("bytes") is not None:
                await self._frame_message(message["bytes"], time.monotonic())
            else:
                self._limit.count()
                await self._json_message(read_json_message(message["text"]))

    async def _json_message(self, message: dict[str, Any]) -> None:
        kind = message.pop("type")
        if kind != "controls":
            raise SessionError(MALFORMED, f"unknown message type {kind!r:.40}; expected 'controls'")
        try:
            self.board.change(message)
        except InputError as error:
            await self._send_json({"type": "error", "message": str(error)})
            self._controls_changed.set()  # shows the sliders where they really stand

    async def _tell_controls(self) -> None:
        while True:
            await self._controls_changed.wait()
            self._controls_changed.clear()
            if self._styles_changed:
                self._styles_changed = False
                await self._send_json({"type": "styles"})
            await self._send_json({"type": "controls"} | self._controls_json())

    def _controls_json(self) -> dict[str, Any]:
        return {"controls": self.board.as_json(), "revision": self.board.revision}

    async def _send_json(self, message: dict[str, Any]) -> None:
        await within_send_time(self._socket.send_text(json.dumps(message)))

    async def _send(self, shown: Shown, *, with_original: bool = False) -> None:
        """The frame, and before it what it was painted with, where that has changed."""
        if shown.rung is not None and shown.rung != self._rung:
            self._rung = shown.rung
            await self._send_json({"type": "quality", "model": shown.rung.model, "lines": shown.rung.lines})
        await within_send_time(self._socket.send_bytes(shown.message(with_original=with_original)))

    async def _close(self, code: int, reason: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            try:
                await within_send_time(self._socket.close(code, reason))
            except (SessionError, WebSocketDisconnect, RuntimeError):  # it has left in the meantime
                log.debug("session %d had left before it was told: %s", self.number, reason)


class CameraSession(Session):
    """Frames come from the browser and go back painted, in order, at most `IN_FLIGHT` on the way.

    Args:
        painter: of this session alone.
        workers: run it.
        idle_seconds: a session that sends no frame for so long gives its place back.
    """

    kind = "camera"

    def __init__(
        self, socket: WebSocket, board: Board, painter: FramePainter, workers: Executor, idle_seconds: float
    ) -> None:
        super().__init__(socket, board)
        self._painter = painter
        self._workers = workers
        self._idle_seconds = idle_seconds
        self._waiting: asyncio.Queue[tuple[int, bytes, float]] = asyncio.Queue()
        self._in_flight = 0

    async def _frame_message(self, message: bytes, arrived: float) -> None:
        sequence, picture = read_frame_message(message)
        if len(message) > MAX_MESSAGE_BYTES:
            raise SessionError(MALFORMED, f"a frame of {len(message)} bytes; expected at most {MAX_MESSAGE_BYTES}")
        if self._in_flight >= IN_FLIGHT:
            raise SessionError(MALFORMED, f"more than {IN_FLIGHT} frames in flight; wait for the answers")
        self._in_flight += 1
        self._waiting.put_nowait((sequence, picture, arrived))

    async def _frames(self) -> None:
        loop = asyncio.get_running_loop()
        earliest = loop.time()
        while True:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    sequence, picture, arrived = await self._waiting.get()
            except TimeoutError:
                reason = f"no frame for {self._idle_seconds:g} seconds; the place was given back"
                raise SessionError(IDLE, reason) from None
            await asyncio.sleep(max(0.0, earliest - loop.time()))
            earliest = max(earliest, loop.time() - 1 / MAX_FRAMES_PER_SECOND) + 1 / MAX_FRAMES_PER_SECOND
            shown = await loop.run_in_executor(self._workers, self._painter.paint_encoded, sequence, picture, arrived)
            self._in_flight -= 1  # before the answer goes out: it invites the next frame
            await self._send(shown)
            self.meter.shown(time.monotonic() - arrived)


class ViewerSession(Session):
    """Takes the newest frame of the server's source whenever fewer than `IN_FLIGHT` are unacknowledged.

    Attributes:
        wants_original: the unpainted frame comes beside.
    """

    kind = "viewer"

    def __init__(self, socket: WebSocket, board: Board) -> None:
        super().__init__(socket, board)
        self.wants_original = False
        self._newest: Shown | None = None
        self._ready = asyncio.Event()  # something below has changed
        self._unacknowledged: list[int] = []
        self._error: VideoNSTError | None = None
        self._trouble: str | None = None
        self._drops = 0

    def offer(self, shown: Shown) -> None:
        """The newest frame; one that was not sent before is dropped. Call it in the event loop."""
        self._drops += self._newest is not None
        self._newest = shown
        self._ready.set()

    def warn(self, trouble: str) -> None:
        """One line while no frames come; empty when they come again. Call it in the event loop."""
        self._trouble = trouble
        self._ready.set()

    def end(self, error: VideoNSTError) -> None:
        """The source has failed or ended. Call it in the event loop."""
        self._error = error
        self._ready.set()

    async def _json_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "original":
            if not isinstance(message.get("wanted"), bool):
                raise SessionError(MALFORMED, 'expected {"type": "original", "wanted": true or false}')
            self.wants_original = message["wanted"]
        else:
            await super()._json_message(message)

    async def _frame_message(self, message: bytes, arrived: float) -> None:
        sequence, rest = read_frame_message(message)
        if rest or sequence not in self._unacknowledged:
            raise SessionError(MALFORMED, "expected the number of a frame that was shown, 4 bytes, and nothing else")
        self._unacknowledged.remove(sequence)
        self._ready.set()

    async def _frames(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            if self._error is not None:
                raise SessionError(FAILED, str(self._error)) from self._error
            if self._trouble is not None:
                trouble, self._trouble = self._trouble, None
                await self._send_json({"type": "trouble", "message": trouble})
            if self._newest is None or len(self._unacknowledged) >= IN_FLIGHT:
                continue
            shown, self._newest = self._newest, None
            self._unacknowledged.append(shown.sequence)
            await self._send(shown, with_original=self.wants_original)
            self.meter.shown(shown.waited + shown.painted, self._drops)
            self._drops = 0


async def _until_first(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Runs all until the first ends, cancels the rest and raises what the first raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def within_send_time(sending: Coroutine[Any, Any, None]) -> None:
    """Awaits `sending` for `SEND_SECONDS` at most. Raises SessionError."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await sending
    except TimeoutError:
        raise SessionError(IDLE, f"took no data for {SEND_SECONDS:g} seconds") from None
