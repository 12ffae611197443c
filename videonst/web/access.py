"""Who may talk to the server: a token where it listens to other machines, and no other web page anywhere."""

import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videonst.errors import InputError

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

_TOKEN_BYTES = 24
"""192 bits, beyond guessing."""

_TOKEN = re.compile(r"[\w.~-]{8,}", re.ASCII)
"""What goes into an address and a cookie as it is (RFC 3986, 2.3), and takes long to guess."""

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """Who may talk to the server.

    Attributes:
        token: needed for everything; None lets everybody in.
        hosts: names by which the server may be called, in lower case; None allows any.
    """

    token: str | None = None
    hosts: frozenset[str] | None = None

    @classmethod
    def to(cls, host: str, token: str | None = None) -> Self:
        """For a server bound to `host`. Where other machines can reach it, a token is needed, and made up where none
        is given; where only this one can, it answers to its local names only, so that no foreign name can be bound
        to it.

        Raises:
            InputError: a token that is too short, or has other characters than letters, digits and -._~
        """
        if token is not None and not _TOKEN.fullmatch(token):
            raise InputError("the token will not do; expected 8 letters, digits or -._~ or more")
        if _is_local(host):
            return cls(token, frozenset((*_LOCAL_NAMES, host.lower())))
        return cls(token or secrets.token_urlsafe(_TOKEN_BYTES))


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Gate:
    """ASGI middleware. Refuses, before anything else sees the request:

    - a Host header that is none of the hosts, where these are given (a name that was rebound to this machine);
    - an Origin header of another page, on WebSockets and on every request that changes something;
    - a request without the token, where there is one. It may come as `?token=` (the printed link; the page then
      keeps it in a cookie), as `Authorization: Bearer …`, or as the cookie.

    Args:
        app: what is guarded.
        access: who may come in.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._token = access.token
        self._hosts = access.hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            if scope["type"] == "websocket":  # sent as an HTTP answer to the handshake
                await send({"type": "websocket.http.response.start", "status": refusal.status_code, "headers": []})
                await send({"type": "websocket.http.response.body", "body": bytes(refusal.body)})
            else:
                await refusal(scope, receive, send)
            return
        query = QueryParams(scope["query_string"])
        if scope["type"] == "http" and scope["path"] == "/" and self._token is not None and "token" in query:
            welcome = RedirectResponse(".", 303)
            secure = "; Secure" if scope["scheme"] == "https" else ""
            welcome.headers["set-cookie"] = f"{_cookie(scope)}={self._token}; HttpOnly; SameSite=Strict; Path=/{secure}"
            await welcome(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in _HEADERS.items())]
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _name(f"//{host}") not in self._hosts:
            return _refuse(403, f"this server is not called {host}; use http://127.0.0.1 or localhost")
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
        if changes and origin is not None and _netloc(origin) != host.lower():
            return _refuse(403, f"requests from pages of {origin} are not taken")
        if self._token is not None and not self._knows_token(scope, headers):
            return _refuse(401, "the token is missing or wrong; open the link that videonst serve printed")
        return None

    def _knows_token(self, scope: Scope, headers: Headers) -> bool:
        offered = (
            QueryParams(scope["query_string"]).get("token", ""),
            headers.get("authorization", "").removeprefix("Bearer "),
            cookie_parser(headers.get("cookie", "")).get(_cookie(scope), ""),
        )
        return any(hmac.compare_digest(token.encode(), (self._token or "").encode()) for token in offered)


def _cookie(scope: Scope) -> str:
    """Cookies do not tell ports apart, so the name does."""
    return f"videonst-{(scope.get('server') or ('', 0))[1]}"


def _netloc(address: str) -> str:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""


def _name(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _refuse(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)
