"""The one function that opens whatever a live picture can come from."""

import re
from pathlib import Path
from typing import Protocol

from videonst.errors import InputError
from videonst.sources.paced import PacedSource
from videonst.sources.source import Source, open_source


class LiveSource(Source, Protocol):
    """Yields frames as they happen, and can be told from another thread to stop."""

    @property
    def trouble(self) -> str:
        """One line while no frames come, else empty."""
        ...

    def stop(self) -> None:
        """The iteration ends soon."""
        ...


def open_recording(source: str | Path, *, loop: bool = False) -> LiveSource:
    """Opens what stands in for a camera: anything that `videonst.sources.open_source` takes, paced by its own times.

    Args:
        source: a file, a folder of pictures, a network address. A single picture is repeated for ever.
        loop: start again at the end.

    Raises:
        InputError: it cannot be opened.
    """
    return PacedSource(lambda: open_source(source), loop=loop)


def camera_id(text: str) -> int | str:
    """The camera that `text` names: a number, or a device such as /dev/video2.

    Raises:
        InputError: neither.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    if re.fullmatch(r"/dev/\S+", text):
        return text
    raise InputError(f"cannot read {text!r} as a camera; expected a number, see --list-cameras, or /dev/videoN")
