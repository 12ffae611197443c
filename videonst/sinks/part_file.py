"""Files that appear under their own name only when they are complete."""

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from videonst.errors import InputError, VideoNSTError


class Output(Protocol):
    """Where a muxer writes: a file that appears complete, or a stream that is gone as it is written.

    Attributes:
        target: for messages.
        url: for FFmpeg.
    """

    target: Path

    @property
    def url(self) -> str: ...

    def writing(self) -> contextlib.AbstractContextManager[None]: ...

    def commit(self) -> None: ...

    def discard(self) -> None: ...


class PartFile:
    """A hidden file beside the target, `.NAME.part`, which takes the target's name on `commit`.

    Created at once, so that a target that cannot be written is known before the work starts. Without `commit` it is
    gone when nobody holds this any longer: Ctrl-C may come before anybody does.

    Attributes:
        target: the name that the file will have.
        path: the name that it has until then.

    Raises:
        InputError: the target is the source, a directory, exists already (without `overwrite`) or cannot be created.
    """

    def __init__(self, target: Path, source: Path | None, *, overwrite: bool) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.part")
        if not target.parent.is_dir():
            raise InputError(f"cannot write {target}: there is no directory {target.parent}; create it first")
        if target.is_dir():
            raise InputError(f"cannot write {target}: it is a directory; name a file in it")
        if source is not None and target.exists() and source.exists() and target.samefile(source):
            raise InputError(f"input and output are the same file, {target}; name another output")
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists already; name another output or pass --overwrite (overwrite=True)")
        self._gone = weakref.finalize(self, _unlink, self.path)
        try:
            self.path.open("wb").close()
        except OSError as error:
            raise InputError(f"cannot write in {target.parent}: {error.strerror}; name another directory") from error

    @property
    def url(self) -> str:
        """ "file:" keeps a colon in the name from being read as a protocol."""
        return f"file:{self.path}"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a failure of the disk inside the block into a `VideoNSTError`."""
        try:
            yield
        except OSError as error:
            raise VideoNSTError(
                f"cannot write {self.target}: {error.strerror or error}; check the space left and the permissions"
            ) from error

    def commit(self) -> None:
        with self.writing():
            sync(self.path)
            os.replace(self.path, self.target)
        self._gone.detach()

    def discard(self) -> None:
        self._gone()


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk, where a power cut cannot take them."""
    if sys.platform == "win32":  # knows neither folders nor read-only files as something to bring to the disk
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
