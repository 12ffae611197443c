"""Encoded pictures that come from outside: their size is read from the header before anything is decoded."""

from collections.abc import Iterator
from typing import Literal

import cv2
import numpy as np

from videonst.errors import InputError, VideoNSTError
from videonst.frame import Pixels

FORMATS = ("jpeg", "webp")
"""What a browser's canvas can write and every browser shows."""


def decode(data: bytes, *, max_pixels: int) -> Pixels:
    """RGB, uint8, (height, width, 3), upright, of a JPEG, WebP or PNG picture; transparency is dropped.

    Raises:
        InputError: another format, a damaged picture, or a size that is not allowed.
    """
    width, height = declared_size(data)
    if not 0 < width * height <= max_pixels:
        raise InputError(f"the picture is {width}x{height}; expected at most {max_pixels} pixels")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        picture = None
    if picture is None:
        raise InputError("the picture is damaged; send a complete JPEG, WebP or PNG")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def encode(pixels: Pixels, form: str, quality: int) -> bytes:
    """`pixels`, RGB, uint8, as "jpeg" or "webp" of that quality (1 to 100), or as lossless "png"."""
    options = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
        "png": [],
    }[form]
    done, data = cv2.imencode(f".{form}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise VideoNSTError(f"OpenCV cannot write {form} pictures here; choose another format")
    return data.tobytes()


def declared_size(data: bytes) -> tuple[int, int]:
    """Width and height as stored in the header of a JPEG (ITU-T T.81, B.2.2), WebP (RFC 9649) or PNG (ISO/IEC 15948).

    Raises:
        InputError: none of them, or cut off within the header.
    """
    size = next(_sizes(data), None)
    if size is None:
        raise InputError("this is no picture that can be read; expected JPEG, WebP or PNG")
    return size


_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA)}


def _sizes(data: bytes) -> Iterator[tuple[int, int]]:
    def number(start: int, length: int, order: Literal["little", "big"] = "little") -> int:
        return int.from_bytes(data[start : start + length], order)

    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        yield number(16, 4, "big"), number(20, 4, "big")
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30:
        kind = data[12:16]
        if kind == b"VP8X":
            yield number(24, 3) + 1, number(27, 3) + 1
        elif kind == b"VP8L":
            bits = number(21, 4)
            yield (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"VP8 ":
            yield number(26, 2) & 0x3FFF, number(28, 2) & 0x3FFF
    elif data.startswith(b"\xff\xd8"):
        at = 2
        while at + 9 <= len(data) and data[at] == 0xFF:
            marker = data[at + 1]
            if marker in _START_OF_FRAME:
                yield number(at + 7, 2, "big"), number(at + 5, 2, "big")
                return
            at += 1 if marker == 0xFF else 2 if marker in _WITHOUT_LENGTH else 2 + number(at + 2, 2, "big")
