"""The messages of the WebSocket and the limits they keep. docs/serve.md describes them for other clients."""

import json
import struct
import time
from dataclasses import dataclass
from typing import Any

from videonst.errors import VideoNSTError
from videonst.live.quality import Rung

IN_FLIGHT = 2
"""Frames on the way at once: one being painted and one to go on with. More would only add delay."""

MAX_MESSAGE_BYTES = 4 << 20
"""A WebP or JPEG frame of `MAX_FRAME_PIXELS` at full quality stays below."""

MAX_FRAME_PIXELS = 1920 * 1920

MAX_FRAMES_PER_SECOND = 60
"""Faster senders are slowed down by late answers."""

MAX_CHANGES_PER_SECOND = 120
"""A slider sends one change per screen refresh; `_BURST_SECONDS` of them may come at once."""

_BURST_SECONDS = 2

MAX_NAMES = 256
"""Entries of a JSON message; a mixture has as many as the model has styles."""

MALFORMED, IDLE, FULL, GONE = 4400, 4408, 4429, 4410
"""Close codes (RFC 6455 leaves 4000 to 4999 to applications), after the HTTP status of like meaning."""

FAILED, TOO_BIG = 1011, 1009
"""Close codes of RFC 6455: the server failed, the message is too big."""

_MAX_REASON_BYTES = 123
"""RFC 6455, 5.5: a control frame carries 125 bytes, two of them the code."""

_CLIENT_HEADER = struct.Struct("<I")
_SERVER_HEADER = struct.Struct("<IIffI")


class SessionError(VideoNSTError):
    """One session has to end, with a code and a reason that the other side is told."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code

    @property
    def reason(self) -> str:
        """Cut to what a close frame can carry."""
        return str(self).encode()[:_MAX_REASON_BYTES].decode(errors="ignore")


@dataclass(frozen=True)
class Shown:
    """A painted frame on its way to a browser.

    Attributes:
        sequence: number of the frame, given by who sent it.
        revision: of the controls it was painted with.
        waited: seconds from its arrival until painting began.
        painted: seconds that decoding, painting and encoding took.
        picture: JPEG or WebP.
        original: the same moment unpainted, JPEG or WebP; empty where nobody asked for it.
        rung: model and working size; not part of the message.
    """

    sequence: int
    revision: int
    waited: float
    painted: float
    picture: bytes
    original: bytes = b""
    rung: Rung | None = None

    def message(self, *, with_original: bool = False) -> bytes:
        """Little-endian: sequence u32, revision u32, waited f32, painted f32 (milliseconds), length of the picture u32,
        the picture, the original."""
        header = _SERVER_HEADER.pack(
            self.sequence, self.revision, self.waited * 1000, self.painted * 1000, len(self.picture)
        )
        return header + self.picture + (self.original if with_original else b"")

    @classmethod
    def read(cls, message: bytes) -> "Shown":
        """Inverse of `message`, for clients."""
        sequence, revision, waited, painted, length = _SERVER_HEADER.unpack_from(message)
        pictures = message[_SERVER_HEADER.size :]
        return cls(sequence, revision, waited / 1000, painted / 1000, pictures[:length], pictures[length:])


def frame_message(sequence: int, picture: bytes = b"") -> bytes:
    """What a camera sends: sequence u32, little-endian, and the picture. Without a picture: a viewer has shown it."""
    return _CLIENT_HEADER.pack(sequence) + picture


def read_frame_message(message: bytes) -> tuple[int, bytes]:
    """Inverse of `frame_message`. Raises SessionError."""
    if len(message) < _CLIENT_HEADER.size:
        raise SessionError(MALFORMED, f"a binary message of {len(message)} bytes; expected 4 bytes of sequence number")
    return _CLIENT_HEADER.unpack_from(message)[0], message[_CLIENT_HEADER.size :]


def read_json_message(text: str) -> dict[str, Any]:
    """A JSON object with a `type`. Raises SessionError."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SessionError(MALFORMED, "a text message that is no JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str) or len(message) > MAX_NAMES:
        raise SessionError(MALFORMED, 'a text message without a type; expected {"type": …}')
    return message


class ChangeLimit:
    """Counts text messages: `MAX_CHANGES_PER_SECOND`, with bursts (a token bucket)."""

    def __init__(self) -> None:
        self._left: float = MAX_CHANGES_PER_SECOND * _BURST_SECONDS
        self._counted = time.monotonic()

    def count(self) -> None:
        """Counts one message. Raises SessionError where there were too many."""
        now = time.monotonic()
        gained = (now - self._counted) * MAX_CHANGES_PER_SECOND
        self._left = min(self._left + gained, MAX_CHANGES_PER_SECOND * _BURST_SECONDS) - 1
        self._counted = now
        if self._left < 0:
            raise SessionError(MALFORMED, f"more than {MAX_CHANGES_PER_SECOND} text messages a second")
