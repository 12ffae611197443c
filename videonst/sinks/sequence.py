"""Numbered pictures as a sink of frames."""

import logging
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from videonst.engines import Stateful
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.sinks.image import check_alpha, encode_picture
from videonst.sinks.part_file import PartFile
from videonst.sinks.parts import PaintedFrames, Parts, segment_index
from videonst.sources import SourceInfo
from videonst.sources.source import NUMBER

_log = logging.getLogger(__name__)

FOLDER_PATTERN = "%06d.png"
"""Names of the pictures in a folder."""


class ImageSequenceSink:
    """Writes every frame as a picture, numbered from 1, by the pattern (`out_%05d.png`) or into a folder (`out/`, made
    where it is missing). Times and sound have no place in pictures. A picture appears complete or not at all; those
    that are done stay where the work fails.

    Raises:
        InputError: pictures that fit the pattern exist already (without `overwrite`) or cannot hold the source's
            transparency, the folder cannot be written, or as `Parts`.
        VideoNSTError: no frame came, or the disk failed.
    """

    def __init__(
        self,
        path: Path,
        source: SourceInfo | None = None,
        *,
        drop: Collection[str] = (),
        settings: Mapping[str, Any] | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.pattern = path if NUMBER.search(path.name) else path / FOLDER_PATTERN
        check_alpha(self.pattern, source, drop)
        self._keep_alpha = "alpha" not in drop
        folder = self.pattern.parent
        if (
            source is not None
            and source.path is not None
            and source.path.resolve() in (folder.resolve(), path.resolve())
        ):
            raise InputError(f"input and output are the same folder, {source.path}; name another output")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"cannot write pictures into {folder}: it is a file; name a folder")
        existing = self._existing() if folder.is_dir() else []
        self._parts: Parts | None = None
        is_begun = (folder / f".{self.pattern.name}.parts").exists()
        if existing and not overwrite and not is_begun:
            raise InputError(
                f"{folder} holds {len(existing)} pictures such as {existing[0].name} already; name another output or "
                "pass --overwrite (overwrite=True)"
            )
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error
        if not os.access(folder, os.W_OK):
            raise InputError(f"cannot write in {folder}: permission denied; name another directory")
        if settings is not None and source is not None and source.path is not None:
            self._parts = Parts(self.pattern, source.path, settings, resume=resume, overwrite=overwrite)
        if self._parts is None or not self._parts.is_resumed:
            for picture in existing:  # or a shorter clip would end in pictures of an older one
                picture.unlink()
        self._written = 0
        self._states: dict[int, Mapping[str, Any]] = {}
        self._seen: int | None = None
        self._index: int | None = None

    def restore(self, engine: object) -> int:
        if self._parts is None or not self._parts.is_resumed:
            return 0
        if not isinstance(engine, Stateful):
            while self.picture(self._written + 1).exists():
                self._written += 1
        elif (self._parts.folder / _STATE).exists():
            state = self._parts.load_state(_STATE)
            self._written = state.pop(_DONE)
            engine.restore(state)
        return self._written

    def remember(self, frame: Frame, engine: object) -> None:
        index = segment_index(frame)
        if index != self._seen and self._seen is not None and isinstance(engine, Stateful):
            self._states[index] = engine.state()
        self._seen = index

    def begins_part(self, frame: Frame) -> bool:
        return self._seen is not None and segment_index(frame) != self._seen

    def store(self) -> PaintedFrames | None:
        return PaintedFrames(self._parts) if self._parts else None

    def write(self, frame: Frame) -> None:
        index, number = segment_index(frame), self._written + 1
        if index != self._index and index in self._states and self._parts is not None:
            self._parts.save_state(_STATE, {**self._states.pop(index), _DONE: self._written})
            PaintedFrames(self._parts).drop_before(frame)
        self._index = index
        part = PartFile(self.picture(number), None, overwrite=True)
        try:
            with part.writing():
                kept = frame if self._keep_alpha else frame.over_white()
                part.path.write_bytes(encode_picture(kept, part.target.suffix))
            part.commit()
        finally:
            part.discard()
        self._written = number

    def picture(self, number: int) -> Path:
        """The file of one frame, the first being 1."""
        return self.pattern.with_name(NUMBER.sub(lambda match: f"{number:{match[1]}{match[2]}}", self.pattern.name, 1))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kept = self._written or (self._parts is not None and PaintedFrames(self._parts).count())
        if self._parts is not None and (error is None or not kept):
            self._parts.remove()
        elif self._parts is not None:
            self._parts.release()
            _log.warning(
                "%s is not complete; %d pictures are kept: go on with --resume (resume=True)",
                self.pattern,
                self._written,
            )
        if error is None and not self._written:
            raise VideoNSTError(f"no frames came, so {self.pattern} was not written")

    def _existing(self) -> list[Path]:
        before, _, _, after = NUMBER.split(self.pattern.name, 1)
        name = re.compile(re.escape(before) + r"\d+" + re.escape(after))
        return sorted(file for file in self.pattern.parent.iterdir() if name.fullmatch(file.name))


_STATE = "state.npz"
_DONE = "_done"
