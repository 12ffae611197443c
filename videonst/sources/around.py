"""A source around a source."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from videonst.frame import Frame
from videonst.sources.source import Source, SourceInfo, Stoppable


class SourceAround(ABC):
    """Hands on what it does not change; says itself which frames come.

    Args:
        source: closed with this one.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def info(self) -> SourceInfo:
        return self._source.info

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames, made from those of the source."""

    def stop(self) -> None:
        """Ends the reading soon; from any thread."""
        if isinstance(self._source, Stoppable):
            self._source.stop()

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, trace)
