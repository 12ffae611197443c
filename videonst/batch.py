"""Many inputs: which files are meant, what their outputs are called, and one conversion after the other."""

import glob
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from videonst.api import convert
from videonst.errors import InputError, VideoNSTError
from videonst.pipeline import PipelineProgress
from videonst.sinks.sink import PICTURE_SUFFIXES as WRITABLE_PICTURES
from videonst.sinks.sink import VIDEO_SUFFIXES
from videonst.sources.sequence import natural_order
from videonst.sources.source import PICTURE_SUFFIXES, is_address

FOUND_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".gif", ".apng",
)  # fmt: skip
"""What counts as a video in a folder. A file that is named needs none of these."""

DEFAULT_NAME = "{stem}{suffix}"


@dataclass(frozen=True)
class Job:
    """One conversion to do."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: what was to be done.
        status: "skipped" where the target was there already.
        progress: of the conversion, None where it failed or was skipped.
        seconds: how long it took.
        error: why it failed.
    """

    job: Job
    status: Literal["done", "skipped", "failed"]
    progress: PipelineProgress | None = None
    seconds: float = 0.0
    error: VideoNSTError | None = None


def means_many(source: str) -> bool:
    """Whether `source` stands for several inputs: a folder that holds a video, a pattern with wildcards, or a list
    (`@list.txt`). A folder of pictures alone is one sequence."""
    if source.startswith("@"):
        return not Path(source).exists()
    path = Path(source)
    if path.is_dir():
        return any(file.suffix.lower() in FOUND_SUFFIXES for file in _visible(path))
    return glob.has_magic(source) and not path.exists() and not is_address(source)


def find_inputs(sources: Sequence[str]) -> list[Path]:
    """The files that `sources` stand for, each once.

    Args:
        sources: files; folders, whose videos and pictures are taken in natural order; patterns (`*.mov`, `**/*.mp4`);
            lists, `@FILE` with a path in each line, relative to the list, where empty lines and those that begin with
            `#` count for nothing.

    Raises:
        InputError: one of them stands for nothing.
    """
    found: dict[Path, None] = {}
    for source in sources:
        files = list(_found(source))
        if not files:
            raise InputError(f"{source} stands for no file; expected a video, a folder, a pattern or @list.txt")
        found.update(dict.fromkeys(files))
    return list(found)


def plan(inputs: Sequence[Path], folder: Path, name: str = DEFAULT_NAME) -> list[Job]:
    """What each input's output is called.

    Args:
        inputs: files.
        folder: where the outputs go.
        name: of an output, with {stem} and {suffix} of the input (a suffix that cannot be written becomes .mp4 or
            .png), {number} from 1 and {parent}, the name of the input's folder; such as "{number:03}_{stem}.mkv".

    Raises:
        InputError: `folder` names a file, `name` has another field, or two outputs would have one name.
    """
    if folder.suffix.lower() in (*VIDEO_SUFFIXES, *WRITABLE_PICTURES) and not folder.is_dir():
        raise InputError(f"{len(inputs)} inputs need a folder to go to, but {folder} names a file")
    jobs: dict[Path, Job] = {}
    for number, source in enumerate(inputs, 1):
        try:
            filled = name.format(stem=source.stem, suffix=_suffix(source), number=number, parent=source.parent.name)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise InputError(
                f"cannot read the name {name!r}; expected {{stem}}, {{suffix}}, {{number}} or {{parent}} in it"
            ) from error
        target = folder / filled
        if target in jobs:
            raise InputError(
                f"{jobs[target].source} and {source} would both become {target}; tell them apart with --name, such as "
                "'{number}_{stem}{suffix}'"
            )
        jobs[target] = Job(source, target)
    return list(jobs.values())


def convert_many(
    jobs: Sequence[Job],
    style: Any = None,
    *,
    skip_existing: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    begin: Callable[[Job], Callable[[PipelineProgress], None]] | None = None,
    **options: Any,
) -> Iterator[Outcome]:
    """Does one job after the other, and gives the outcome of each. A job that fails does not stop the others.

    Args:
        jobs: as from `plan`. Folders of targets are made where they are missing.
        style, options: of `videonst.convert`; load the model beforehand, and pass it as `model`.
        skip_existing: targets that are there are left alone; so they are with `resume`, unless `overwrite`.
        resume, overwrite: of `videonst.convert`.
        begin: called before a job; gives what is called with its progress.
    """
    for job in jobs:
        if job.target.exists() and (skip_existing or (resume and not overwrite)):
            yield Outcome(job, "skipped")
            continue
        started = time.monotonic()
        progress = begin(job) if begin else None
        try:
            _make_folder(job.target.parent)
            done = convert(
                job.source, job.target, style, resume=resume, overwrite=overwrite, progress=progress, **options
            )
        except VideoNSTError as error:
            yield Outcome(job, "failed", seconds=time.monotonic() - started, error=error)
        else:
            yield Outcome(job, "done", done, time.monotonic() - started)


def _found(source: str) -> Iterator[Path]:
    path = Path(source)
    if source.startswith("@") and not path.exists():
        yield from _listed(Path(source[1:]))
    elif path.is_dir():
        suffixes = (*FOUND_SUFFIXES, *PICTURE_SUFFIXES)
        yield from sorted((file for file in _visible(path) if file.suffix.lower() in suffixes), key=natural_order)
    elif path.exists() or not glob.has_magic(source):
        yield path
    else:
        matches = (Path(match) for match in glob.glob(source, recursive=True))
        yield from sorted((file for file in matches if file.is_file()), key=lambda f: (f.parent, natural_order(f)))


def _listed(path: Path) -> Iterator[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise InputError(f"cannot read the list {path}: {reason}") from error
    for line in lines:
        if line.strip() and not line.startswith("#"):
            yield path.parent / line.strip()


def _visible(folder: Path) -> Iterator[Path]:
    try:
        yield from (file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error


def _suffix(source: Path) -> str:
    suffix = source.suffix.lower()
    if suffix in (*VIDEO_SUFFIXES, *WRITABLE_PICTURES):
        return suffix
    return ".png" if suffix in PICTURE_SUFFIXES else ".mp4"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}; name another") from error
