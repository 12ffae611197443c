"""What an interrupted conversion has finished, kept in a hidden folder beside the target."""

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import cv2
import numpy as np

from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame, Pixels
from videonst.sinks.part_file import sync

if sys.platform != "win32":
    import fcntl


SEGMENT_SECONDS = 8
"""Length of a segment, seconds of the video: what an interruption costs at most. Each begins with a key frame, as x264
would set one every 250 frames anyway. A clip of 10 s in which little moves grew by 14 %, with segments of 4 s by 28 %;
one with much motion by 3 %."""


class Parts:
    """The folder `.NAME.parts` beside the target `NAME`: a manifest that says of what input and settings the parts
    are, the parts themselves, and the memory of the engine. A file in it is complete or not there at all, also after
    a power cut.

    Attributes:
        folder: where the parts are.
        is_resumed: the folder holds the parts of an earlier run, to be continued.

    Raises:
        InputError: parts are there and neither `resume` nor `overwrite` was asked for, another program works on them,
            or, with `resume`, they are of another input or other settings.
    """

    def __init__(
        self, target: Path, source: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool
    ) -> None:
        self.target = target
        self.folder = target.with_name(f".{target.name}.parts")
        self.is_resumed = False
        self._lock: IO[bytes] | None = None
        given = {key: value for key, value in settings.items() if value not in (None, (), [], {})}
        identity = json.loads(json.dumps({"input": fingerprint(source), "settings": given}, default=str))
        if (self.folder / _MANIFEST).exists():
            self._take()
            try:
                self._check(identity, resume=resume, overwrite=overwrite)
            except BaseException:
                self.release()
                raise
        if not self.is_resumed:
            self.remove()
            try:
                with self.writing():
                    self.folder.mkdir()
                    self._take()
                    self.write(_MANIFEST, json.dumps(identity, indent=1).encode())
            except BaseException:  # Ctrl-C too leaves nothing where nothing is done yet
                self.remove()
                raise

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of the folder, safely on the disk when this returns."""
        temporary = self.folder / f"{name}.tmp"
        with self.writing():
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / name)
            sync(self.folder)

    def save_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Writes an engine's memory: arrays as such, the rest as JSON."""
        arrays: dict[str, Any] = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
        rest = json.dumps({key: value for key, value in state.items() if key not in arrays})
        content = io.BytesIO()
        np.savez(content, **{**arrays, _REST: np.array(rest)})
        self.write(name, content.getvalue())

    def load_state(self, name: str) -> dict[str, Any]:
        try:
            with np.load(self.folder / name, allow_pickle=False) as stored:
                arrays = {key: stored[key] for key in stored.files if key != _REST}
                return {**arrays, **json.loads(str(stored[_REST]))}
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"cannot resume {self.target}: {self.folder / name} cannot be read; start over with --overwrite"
            ) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a failure of the disk inside the block into a `VideoNSTError`."""
        try:
            yield
        except OSError as error:
            raise VideoNSTError(
                f"cannot write in {self.folder}: {error.strerror or error}; check the space left and the permissions"
            ) from error

    def remove(self) -> None:
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self) -> None:
        """Lets other programs have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take(self) -> None:
        lock = (self.folder / "lock").open("ab")
        try:
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise InputError(f"another program is writing {self.target}; wait for it or name another output") from error
        self._lock = lock

    def _check(self, identity: Mapping[str, Mapping[str, Any]], *, resume: bool, overwrite: bool) -> None:
        if not resume:
            if overwrite:
                return
            raise InputError(
                f"{self.target} was begun before and interrupted; go on with --resume (resume=True) or start over with "
                "--overwrite"
            )
        try:
            earlier: dict[str, dict[str, Any]] = json.loads((self.folder / _MANIFEST).read_text())
            changed = [
                key
                for kind, values in identity.items()
                for key in sorted({*values, *earlier[kind]})
                if values.get(key) != earlier[kind].get(key)
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"cannot resume {self.target}: {self.folder} cannot be read; start over with --overwrite"
            ) from error
        if changed:
            raise InputError(
                f"cannot resume {self.target}: {', '.join(changed)} changed since it was begun; use the same input and "
                "settings, or start over with --overwrite"
            )
        self.is_resumed = True


_MANIFEST = "manifest.json"
_REST = "_rest"


class PaintedFrames:
    """A `FrameStore` in the folder of the parts: a PNG file for each frame and part."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def get(self, frame: Frame, part: str) -> Pixels | None:
        path = self._parts.folder / self._name(frame, part)
        if not path.exists():
            return None
        kept = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if kept is None or kept.shape != frame.pixels.shape:
            return None
        return cast(Pixels, cv2.cvtColor(kept, cv2.COLOR_BGR2RGB))

    def put(self, frame: Frame, part: str, pixels: Pixels) -> None:
        _, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        self._parts.write(self._name(frame, part), encoded.tobytes())

    def drop_before(self, frame: Frame) -> None:
        """Forgets the segments before that of `frame`."""
        now = segment_index(frame)
        for path in self._parts.folder.glob("painted *.png"):
            if int(path.name.split()[1]) < now:
                path.unlink(missing_ok=True)

    def count(self) -> int:
        """Moments of which something is kept."""
        return len({path.name.split()[2] for path in self._parts.folder.glob("painted *.png")})

    @staticmethod
    def _name(frame: Frame, part: str) -> str:
        return f"painted {segment_index(frame)} {frame.time.numerator}_{frame.time.denominator} {part}.png"


def segment_index(frame: Frame) -> int:
    """Which segment a frame belongs to."""
    return math.floor(frame.time / SEGMENT_SECONDS)


def fingerprint(path: Path) -> dict[str, str]:
    """What tells whether an input is still the same: sizes, times of change, and a hash of parts of a file."""
    folder = path if path.is_dir() else path.parent
    if path.is_dir() or not path.exists():  # numbered pictures
        digest = hashlib.sha256()
        for file in sorted(folder.iterdir()):
            if file.suffix == path.suffix or path.is_dir():
                stat = file.stat()
                digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return {"input": str(path.resolve()), "pictures": digest.hexdigest()}
    stat = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as content:
        for place in (0, stat.st_size // 2, max(0, stat.st_size - _HASHED_BYTES)):
            content.seek(place)
            digest.update(content.read(_HASHED_BYTES))
    return {
        "input": str(path.resolve()),
        "size of the input": str(stat.st_size),
        "time of the input": str(stat.st_mtime_ns),
        "content of the input": digest.hexdigest(),
    }


_HASHED_BYTES = 1 << 20
"""At the beginning, in the middle and at the end: enough to tell files apart, quick for any size."""
