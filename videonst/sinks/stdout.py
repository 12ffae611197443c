"""Standard output (`-`) as a place to write a video to."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from videonst.errors import InputError, VideoNSTError

STREAMED_FORMATS = {"matroska": "matroska", "webm": "webm", "mpegts": "mpegts", "nut": "nut", "mp4": "mp4"}
"""Containers that can be written front to back, by FFmpeg's names. MP4 is written in fragments."""

DEFAULT_STREAM_FORMAT = "matroska"


class StandardOutput:
    """Takes the place of a part file where nothing can be renamed: what is written is gone.

    Raises:
        InputError: standard output is a terminal.
    """

    def __init__(self) -> None:
        self.target = Path("standard output")
        if sys.stdout is not None and sys.stdout.isatty():
            raise InputError("standard output is a terminal; pipe it into a program, or name a file instead of -")

    @property
    def url(self) -> str:
        return "pipe:1"

    def options(self, muxer: str) -> dict[str, str]:
        return {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if muxer == "mp4" else {}

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            raise VideoNSTError("whoever read standard output has gone; nothing more was written") from error
        except OSError as error:
            raise VideoNSTError(f"cannot write to standard output: {error.strerror or error}") from error

    def commit(self) -> None:
        pass

    def discard(self) -> None:
        pass
