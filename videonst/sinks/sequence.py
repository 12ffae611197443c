"""Numbered pictures as a sink of frames."""

import os
import re
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.sinks.image import check_alpha, encode_picture
from videonst.sinks.part_file import PartFile
from videonst.sources import SourceInfo
from videonst.sources.source import NUMBER

FOLDER_PATTERN = "%06d.png"
"""Names of the pictures in a folder."""


class ImageSequenceSink:
    """Writes every frame as a picture, numbered from 1, by the pattern (`out_%05d.png`) or into a folder (`out/`, made
    where it is missing). Times and sound have no place in pictures. A picture appears complete or not at all; those
    that are done stay where the work fails.

    Raises:
        InputError: pictures that fit the pattern exist already (without `overwrite`) or cannot hold the source's
            transparency, or the folder cannot be written.
        VideoNSTError: no frame came, or the disk failed.
    """

    def __init__(
        self, path: Path, source: SourceInfo | None = None, *, drop: Collection[str] = (), overwrite: bool = False
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
        if existing and not overwrite:
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
        for picture in existing:  # or a shorter clip would end in pictures of an older one
            picture.unlink()
        self._written = 0

    def write(self, frame: Frame) -> None:
        number = self._written + 1
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
        if error is None and not self._written:
            raise VideoNSTError(f"no frames came, so {self.pattern} was not written")

    def _existing(self) -> list[Path]:
        before, _, _, after = NUMBER.split(self.pattern.name, 1)
        name = re.compile(re.escape(before) + r"\d+" + re.escape(after))
        return sorted(file for file in self.pattern.parent.iterdir() if name.fullmatch(file.name))
