"""Files that are complete under their name or not there: written beside it, then renamed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the name of a hidden file beside `path`, to be written in the block. It takes the place of `path` at the
    end of the block, or is removed where that fails.

    Raises:
        OSError: the disk fails.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
