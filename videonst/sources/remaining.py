"""A source without its first frames, which an earlier run has done."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from videonst.frame import Frame
from videonst.sources.source import Source, SourceInfo, Stoppable


class Remaining:
    """Reads and drops the first `done` frames, so that what follows is what an uninterrupted run would get: filters
    and decoders have the same past."""

    def __init__(self, source: Source, done: int) -> None:
        self._source = source
        self._done = done
        self._stopped = False

    @property
    def info(self) -> SourceInfo:
        return self._source.info

    def __iter__(self) -> Iterator[Frame]:
        for index, frame in enumerate(self._source):
            if self._stopped:
                return
            if index >= self._done:
                yield frame

    def stop(self) -> None:
        """Ends the reading soon; from any thread."""
        self._stopped = True
        if isinstance(self._source, Stoppable):
            self._source.stop()

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, trace)
