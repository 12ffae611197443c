"""A source without its first frames, which an earlier run has done."""

from collections.abc import Iterator

from videonst.frame import Frame
from videonst.sources.around import SourceAround
from videonst.sources.source import Source


class Remaining(SourceAround):
    """Reads and drops the first `done` frames, so that what follows is what an uninterrupted run would get: filters
    and decoders have the same past."""

    def __init__(self, source: Source, done: int) -> None:
        super().__init__(source)
        self._done = done
        self._stopped = False

    def __iter__(self) -> Iterator[Frame]:
        for index, frame in enumerate(self._source):
            if self._stopped:
                return
            if index >= self._done:
                yield frame

    def stop(self) -> None:
        self._stopped = True
        super().stop()
