"""Runs the application on a port of this machine."""

import contextlib
import socket
import ssl
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from videonst.errors import InputError
from videonst.web.protocol import MAX_MESSAGE_BYTES

_SHUTDOWN_SECONDS = 3
"""How long requests may take to end after Ctrl-C."""

_LAST_PORT = 65535

_BACKLOG = 128
"""Connections that may wait to be accepted."""

_ANY = ("0.0.0.0", "::")


class PageServer:
    """A server whose port is taken when it is made and served by `run`.

    Args:
        app: see `create_app`.
        host: address or name to bind.
        port: 0 takes a free one.
        certificate, key: PEM files for https; None serves http.

    Attributes:
        port: that is bound.

    Raises:
        InputError: the port is taken or may not be used, no such host, or certificate and key do not fit.
    """

    def __init__(
        self, app: ASGIApp, host: str, port: int, *, certificate: Path | None = None, key: Path | None = None
    ) -> None:
        self._host = host
        self._scheme = "http" if certificate is None else "https"
        _check_tls(certificate, key)
        self._socket = _bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            ws="websockets-sansio",  # the older implementation uses what websockets has deprecated
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # pictures are compressed already
            proxy_headers=False,
            server_header=False,
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._server = uvicorn.Server(config)

    def link(self, token: str | None = None) -> str:
        """Address of the page; for a server on all addresses, one that other machines probably reach."""
        name = _own_address() if self._host in _ANY else self._host
        query = "" if token is None else f"?token={token}"
        return f"{self._scheme}://{f'[{name}]' if ':' in name else name}:{self.port}/{query}"

    def run(self) -> None:
        """Serves until `stop` or, in the main thread, Ctrl-C, which is then raised as KeyboardInterrupt."""
        with contextlib.closing(self._socket):
            self._server.run(sockets=[self._socket])

    def close(self) -> None:
        """Gives the port back without having served."""
        self._socket.close()

    def stop(self) -> None:
        """Makes `run` return soon. Call it from any thread."""
        self._server.should_exit = True

    @property
    def started(self) -> bool:
        """Whether requests are answered."""
        return self._server.started


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    if certificate is None:
        if key is not None:
            raise InputError("a key without its certificate; give both --tls-certificate and --tls-key")
        return
    for path in filter(None, (certificate, key)):
        if not path.is_file():
            raise InputError(f"there is no file {path}; expected a certificate or key in PEM format")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError) as error:
        names = " and ".join(str(path) for path in (certificate, key) if path)
        raise InputError(f"{names}: no certificate with its key in PEM format ({error})") from error


def _no_password() -> str:
    raise InputError("the TLS key is encrypted; give one without a password")


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not 0 <= port <= _LAST_PORT:
        raise InputError(f"port {port} is out of range; expected 0 to {_LAST_PORT}")
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port} ({error.strerror or error}); choose another with --host or --port"
        ) from error


def _own_address() -> str:
    """The address of the interface that leads outside. Connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address for documentation
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
