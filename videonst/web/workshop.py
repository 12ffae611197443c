"""Learning a style from an uploaded painting: `videonst learn` in a process of its own, one at a time."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from videonst.engines.providers import cache_folder
from videonst.errors import InputError, VideoNSTError
from videonst.models import find_model
from videonst.styles import check_name
from videonst.web.picture import decode

log = logging.getLogger(__name__)

MAX_PAINTING_BYTES = 32 << 20
MAX_PAINTING_PIXELS = 60_000_000
"""Of an uploaded painting; more than a camera of today gives, and a quarter of a gigabyte in memory."""
LEAST_SIDE = 128
"""Of an uploaded painting, pixels: `training.budget.SMALLEST_PAINTING`, which the server, without torch, cannot ask."""

MAX_MINUTES = 60.0

NICENESS = 10
"""The pictures that run go first (POSIX; 10 leaves a tenth to learning where both want all)."""

INSTALL = "pip install 'videonst[train]'"

_SUFFIXES = {b"\x89PNG": ".png", b"RIFF": ".webp"}

_POLL_SECONDS = 0.3
_END_SECONDS = 5.0


class BusyError(InputError):
    """Another painting is being learnt."""


@dataclass(frozen=True, kw_only=True)
class LearnOptions:
    """How paintings are learnt.

    Attributes:
        folder: for the model files; made when first needed. None takes `learnt` in the cache folder.
        arguments: more of `videonst learn`, such as ("--vgg", "vgg19.safetensors").
        command: what learns.
    """

    folder: Path | None = None
    command: tuple[str, ...] = (sys.executable, "-m", "videonst", "learn")
    arguments: tuple[str, ...] = ()


class Workshop:
    """Where one painting at a time is learnt. Used in the event loop.

    Args:
        options: see `LearnOptions`.
        done: awaited with the path of the new model file and the name of the new style.
    """

    def __init__(self, options: LearnOptions, done: Callable[[Path, str], Awaitable[None]]) -> None:
        self._options = options
        self._done = done
        self._missing = [name for name in ("torch", "torchvision", "onnx") if util.find_spec(name) is None]
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._state, self._name, self._error, self._cancelled = "idle", "", "", False
        self._out: Path | None = None
        self._job: Path | None = None

    @property
    def model(self) -> Path | None:
        """The file with what was learnt here."""
        return self._out if self._out is not None and self._out.is_file() else None

    @property
    def preview(self) -> Path | None:
        """The picture of how far learning is."""
        path = None if self._job is None else self._job / "preview.png"
        return path if path is not None and path.is_file() else None

    def as_json(self) -> dict[str, Any]:
        progress: Any = None
        if self._job is not None:
            with contextlib.suppress(OSError, ValueError):
                progress = json.loads((self._job / "progress.json").read_text(encoding="utf-8"))
        return {
            "available": not self._missing,
            "install": INSTALL if self._missing else None,
            "state": self._state,
            "name": self._name,
            "error": self._error or None,
            "progress": progress,
            "preview": self.preview is not None,
            "model": None if self.model is None else self.model.name,
        }

    def check(self) -> None:
        """
        Raises:
            BusyError: another painting is being learnt.
            VideoNSTError: what learning needs is not installed.
        """
        if self._missing:
            raise VideoNSTError(f"learning a style needs {' and '.join(self._missing)}; run: {INSTALL}")
        if self._process is not None:
            raise BusyError(f"{self._name!r} is being learnt; wait for its end, or end it")

    def start(
        self,
        data: bytes,
        name: str,
        *,
        base: str,
        taken: tuple[str, ...],
        minutes: float,
        strokes: str,
        int8: bool = False,
    ) -> None:
        """Begins; `as_json` tells how it goes.

        Args:
            data: the painting, as a JPEG, WebP or PNG file that `look_at` has seen.
            name: of the new style.
            base: model to add to.
            taken: names of the styles it holds.
            minutes: to learn in, at most `MAX_MINUTES`.
            strokes: stroke size, as `videonst learn` has it.
            int8: make an 8-bit file too.

        Raises:
            BusyError, VideoNSTError: as `check`.
            InputError: a name or number that will not do.
        """
        self.check()
        if check_name(name) in taken:
            raise InputError(f"there is a style {name!r} already; give another name")
        if not 0 < minutes <= MAX_MINUTES:
            raise InputError(f"minutes is {minutes:g}; expected more than 0, {MAX_MINUTES:g} at most")
        folder = self._options.folder or cache_folder() / "learnt"
        out = self._out or _free(folder)
        job = out.with_suffix(".learning")
        try:
            shutil.rmtree(job, ignore_errors=True)
            job.mkdir(parents=True)
            suffix = next((suffix for magic, suffix in _SUFFIXES.items() if data.startswith(magic)), ".jpg")
            painting = job / f"{name}{suffix}"
            painting.write_bytes(data)
            log = (job / "errors.txt").open("wb")
        except OSError as error:
            raise VideoNSTError(f"cannot write to {folder} ({error.strerror}); name another with --learnt") from error
        command = [
            *(*self._options.command, str(painting), "--as", name, "--title", name),
            *("--into", str(find_model(base)), "--out", str(out), "--overwrite"),
            *("--minutes", str(minutes), "--stroke-size", strokes, *(["--int8"] if int8 else [])),
            *self._options.arguments,
        ]
        with log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )
        if hasattr(os, "setpriority"):
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)
        self._state, self._name, self._error, self._out, self._job = "learning", name, "", out, job
        self._cancelled = False
        self._watch = asyncio.get_running_loop().create_task(self._wait(self._process))

    def end(self, *, keep: bool) -> None:
        """Ends what is being learnt.

        Args:
            keep: with the best so far as the result; else without one.
        """
        if self._process is None or self._job is None:
            return
        if keep:
            (self._job / "stop").touch()
        else:
            self._cancelled = True
            self._process.terminate()

    def close(self) -> None:
        """Ends it without a result, and waits for that. From any thread."""
        process, job = self._process, self._job  # the event loop forgets the process as soon as it has ended
        if process is not None and job is not None:
            self._cancelled = True
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
            process.kill()
            shutil.rmtree(job, ignore_errors=True)

    async def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        while process.poll() is None:
            await asyncio.sleep(_POLL_SECONDS)
        assert self._out is not None
        assert self._job is not None
        try:
            if self._cancelled:
                self._state = "cancelled"
                shutil.rmtree(self._job, ignore_errors=True)
                return
            if process.returncode:
                self._state, self._error = "failed", _last_line(self._job / "errors.txt")
                return
            await self._done(self._out, self._name)
            self._state = "done"
        except VideoNSTError as error:
            self._state, self._error = "failed", str(error)
        except Exception:
            log.exception("what was learnt could not be taken over")
            self._state, self._error = "failed", "what was learnt could not be taken over; the server's log says why"
        finally:
            self._process = None
            if not self._out.is_file():
                self._out = None


def look_at(data: bytes) -> None:
    """
    Raises:
        InputError: not a picture that can be learnt from, or too small or large a one.
    """
    height, width = decode(data, max_pixels=MAX_PAINTING_PIXELS).shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise InputError(f"the picture is {width}x{height}; expected sides of {LEAST_SIDE} pixels or more")


def _free(folder: Path) -> Path:
    number = 1
    while (path := folder / f"styles-{number}.onnx").exists():
        number += 1
    return path


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("videonst: ") if lines else "the process ended without a word"
