"""The application: the page, its WebSockets, and a small HTTP API beside it. docs/serve.md describes both."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from videonst import __version__
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.live.controls import AUTO, Controls
from videonst.live.painter import Engines
from videonst.web.access import Access, Gate
from videonst.web.controls import Board
from videonst.web.frames import FramePainter
from videonst.web.picture import decode, encode
from videonst.web.protocol import FULL, GONE
from videonst.web.sessions import CameraSession, Session, ViewerSession
from videonst.web.stage import OpenCapture, Stage
from videonst.web.workshop import MAX_PAINTING_BYTES, BusyError, LearnOptions, Workshop, look_at

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"

MAX_VIEWERS = 32
"""Viewers of the server's source; each costs a copy of the stream on the network, none a second painting."""

MAX_IMAGE_BYTES = 32 << 20
MAX_IMAGE_PIXELS = 12_500_000
"""Of `POST /api/image`: a photograph of 12 megapixels; `full` needs some 500 bytes a pixel."""

MAX_JSON_BYTES = 1 << 16

_CLOSE_SECONDS = 5.0
"""How long the source is waited for at the end."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How the page is served.

    Attributes:
        engines: what paints, and the models to choose from.
        new_controls: makes controls that stand as they should at first; None takes the defaults.
        open_capture: the server's own source, see `videonst.web.stage.OpenCapture`; None has none.
        source_name: what the page calls it.
        max_sessions: cameras of browsers at a time.
        idle_seconds: a camera that sends nothing for so long gives its place back.
        access: who may come in.
        learning: how uploaded paintings are learnt.
    """

    engines: Engines
    new_controls: Callable[[], Controls] | None = None
    open_capture: OpenCapture | None = None
    source_name: str = ""
    max_sessions: int = 4
    idle_seconds: float = 60.0
    access: Access = field(default_factory=Access)
    learning: LearnOptions = field(default_factory=LearnOptions)


def create_app(settings: ServeSettings) -> Starlette:
    """The ASGI application. A model is loaded at once, so that a device that does not work is refused here.

    Raises:
        InputError: no such model, a style that it does not hold, or a device that does not work.
    """
    endpoints = _Endpoints(settings)
    routes = [
        Route("/", endpoints.page),
        Route("/api/status", endpoints.status),
        Route("/api/styles", endpoints.styles),
        Route("/api/mix", endpoints.read_mix),
        Route("/api/mix", endpoints.change_mix, methods=["PUT"]),
        Route("/api/image", endpoints.image, methods=["POST"]),
        Route("/api/learn", endpoints.learning),
        Route("/api/learn", endpoints.learn, methods=["POST"]),
        Route("/api/learn", endpoints.end_learning, methods=["DELETE"]),
        Route("/api/learn/preview", endpoints.preview),
        Route("/api/learn/model", endpoints.learnt_model),
        WebSocketRoute("/ws/camera", endpoints.camera),
        WebSocketRoute("/ws/source", endpoints.source),
        Mount("/", StaticFiles(directory=PAGE)),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Gate, access=settings.access)],
        exception_handlers={VideoNSTError: _refuse, ClientDisconnect: _gone},
        lifespan=endpoints.lifespan,
    )


class _Endpoints:
    """What the requests share. Everything here runs in the event loop; painting runs in `_workers`."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._engines = settings.engines
        self._new_controls = settings.new_controls or self._default_controls
        model = self._new_controls().read().model
        self._engines.get(self._engines.models[-1] if model == AUTO else model)
        self._board = Board(self._new_controls())
        self._sessions: dict[int, Session] = {}
        self._workers = ThreadPoolExecutor(thread_name_prefix="videonst-paint")
        self._workshop = Workshop(settings.learning, self._adopt)
        self._started = time.monotonic()
        self._stage = (
            Stage(settings.open_capture, lambda: FramePainter(self._engines, self._board))
            if settings.open_capture
            else None
        )

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if self._stage is not None:
                await asyncio.to_thread(self._stage.close, _CLOSE_SECONDS)
            await asyncio.to_thread(self._workshop.close)
            self._workers.shutdown(wait=False, cancel_futures=True)

    async def page(self, request: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def status(self, request: Request) -> Response:
        cameras, viewers = self._of_kind(CameraSession), self._of_kind(ViewerSession)
        return JSONResponse(
            {
                "version": __version__,
                "uptime_s": round(time.monotonic() - self._started, 1),
                "device": self._engines.device,
                "models": [AUTO, *self._engines.models],
                "source": self._settings.source_name if self._stage is not None else None,
                "max_sessions": self._settings.max_sessions,
                "cameras": len(cameras),
                "viewers": len(viewers),
                "sessions": [session.as_json() for session in self._sessions.values()],
            }
        )

    async def styles(self, request: Request) -> Response:
        return JSONResponse([asdict(style) for style in self._engines.styles])

    async def read_mix(self, request: Request) -> Response:
        return JSONResponse(self._boards(request)[0].as_json())

    async def change_mix(self, request: Request) -> Response:
        boards = self._boards(request)
        changes = _json_object(await _body(request, MAX_JSON_BYTES))
        for board in boards:  # all boards know the same styles and models: what the first refuses, all would
            board.change(changes)
        return JSONResponse(boards[0].as_json())

    async def image(self, request: Request) -> Response:
        query = dict(request.query_params)
        query.pop("token", None)
        form = query.pop("as", "png")
        if form not in _MEDIA_TYPES:
            raise InputError(f"as={form:.20}; expected {' or '.join(_MEDIA_TYPES)}")
        if unknown := query.keys() - _IMAGE_CONTROLS:
            raise InputError(f"unknown control {', '.join(sorted(unknown)):.80}; expected {', '.join(_IMAGE_CONTROLS)}")
        board = self._board.copy(self._new_controls())
        board.change({name: _read_query(value) for name, value in query.items()})
        data = await _body(request, MAX_IMAGE_BYTES)
        painted = await self._in_worker(self._paint_image, data, board, form)
        return Response(painted, media_type=_MEDIA_TYPES[form])

    async def learning(self, request: Request) -> Response:
        return JSONResponse(self._workshop.as_json())

    async def learn(self, request: Request) -> Response:
        query = {key: value for key, value in request.query_params.items() if key != "token"}
        if unknown := query.keys() - _LEARN_QUERY:
            raise InputError(f"unknown parameter {', '.join(sorted(unknown)):.80}; expected {', '.join(_LEARN_QUERY)}")
        self._workshop.check()
        data = await _body(request, MAX_PAINTING_BYTES)
        await self._in_worker(look_at, data)
        try:
            minutes = float(query.get("minutes", "5"))
        except ValueError:
            raise InputError(f"minutes is {query['minutes']!r:.40}; expected a number") from None
        strokes = query.get("strokes", "medium")
        if strokes not in _STROKES:
            raise InputError(f"strokes is {strokes!r:.40}; expected {', '.join(_STROKES)}")
        models = self._engines.models
        base = "fast" if "fast" in models else models[0]
        used = await self._in_worker(self._engines.get, base)
        self._workshop.start(
            data,
            query.get("name", "mine"),
            base=base,
            taken=self._engines.style_names,
            minutes=minutes,
            strokes=strokes,
            int8=used.description.precision == "int8",
        )
        return JSONResponse(self._workshop.as_json(), 202)

    async def end_learning(self, request: Request) -> Response:
        self._workshop.end(keep=request.query_params.get("keep") == "true")
        return JSONResponse(self._workshop.as_json())

    async def preview(self, request: Request) -> Response:
        return _file(self._workshop.preview, "there is no preview yet")

    async def learnt_model(self, request: Request) -> Response:
        return _file(self._workshop.model, "nothing was learnt here yet")

    async def _adopt(self, model: Path, style: str) -> None:
        """Every page paints with the new file from now on, and learns of it; its own styles stay where they stand."""
        await self._in_worker(self._engines.adopt, model)
        for board in (self._board, *(session.board for session in self._of_kind(CameraSession))):
            board.adopt(self._engines.style_names, self._engines.models)
        for session in self._sessions.values():
            session.tell_styles()

    async def camera(self, socket: WebSocket) -> None:
        await socket.accept()
        if len(self._of_kind(CameraSession)) >= self._settings.max_sessions:
            places = self._settings.max_sessions
            await socket.close(FULL, f"all {places} camera places are taken; try again later")
            return
        board = self._board.copy(self._new_controls())
        painter = FramePainter(self._engines, board)
        await self._serve(CameraSession(socket, board, painter, self._workers, self._settings.idle_seconds))

    async def source(self, socket: WebSocket) -> None:
        await socket.accept()
        if self._stage is None:
            await socket.close(GONE, "this server has no source of its own; start it with --source")
            return
        if len(self._of_kind(ViewerSession)) >= MAX_VIEWERS:
            await socket.close(FULL, f"all {MAX_VIEWERS} places for viewers are taken; try again later")
            return
        viewer = ViewerSession(socket, self._board)
        self._stage.join(viewer)
        try:
            await self._serve(viewer)
        finally:
            self._stage.leave(viewer)

    async def _serve(self, session: Session) -> None:
        self._sessions[session.number] = session
        try:
            await session.run()
        finally:
            del self._sessions[session.number]

    def _of_kind(self, kind: type[Session]) -> list[Session]:
        return [session for session in self._sessions.values() if isinstance(session, kind)]

    def _boards(self, request: Request) -> list[Board]:
        """The board of `?session=N`, else the server's own, and with it those of all cameras."""
        wanted = request.query_params.get("session")
        if wanted is None:
            return [self._board, *(session.board for session in self._of_kind(CameraSession))]
        for session in self._sessions.values():
            if str(session.number) == wanted:
                return [session.board]
        raise InputError(f"there is no session {wanted:.20}; /api/status lists them")

    def _default_controls(self) -> Controls:
        return Controls(self._engines.style_names, models=self._engines.models)

    def _paint_image(self, data: bytes, board: Board, form: str) -> bytes:
        pixels = decode(data, max_pixels=MAX_IMAGE_PIXELS)
        settings = board.controls.read()
        model = self._engines.models[0] if settings.model == AUTO else settings.model
        painted = self._engines.get(model).stylize(Frame(pixels), settings.mix)
        return encode(painted.pixels, form, board.encoding.quality)

    async def _in_worker(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work, *arguments)


def _file(path: Path | None, absent: str) -> Response:
    return JSONResponse({"error": absent}, 404) if path is None else FileResponse(path, filename=path.name)


_LEARN_QUERY = ("name", "minutes", "strokes")
_STROKES = ("small", "medium", "large")

_MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


_IMAGE_CONTROLS = ("mix", "strength", "keep_colour", "model", "quality")
"""What means something for a single picture."""


def _read_query(value: str) -> Any:
    """The value of a control as it stands in an address: JSON where it is JSON, else text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError('the body is no JSON object; expected such as {"mix": {"starry_night": 1}}')
    return value


async def _body(request: Request, maximum: int) -> bytes:
    """The body of a request. Raises _TooBigError as soon as it is longer than `maximum` bytes."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > maximum:
            raise _TooBigError(f"the body is longer than {maximum} bytes; send less")
    return bytes(data)


class _TooBigError(InputError):
    """A request body over its limit."""


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads it: the sender has left in the middle of a body."""
    return Response(status_code=400)


async def _refuse(request: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    return JSONResponse({"error": str(error)}, status)


_STATUS = {_TooBigError: 413, BusyError: 409, InputError: 400}
"""Of an error, the first that fits."""
