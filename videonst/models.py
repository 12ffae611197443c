"""Where model files are: the shipped ones by name, any other by path."""

import contextlib
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from videonst.atomic import replacing
from videonst.engines.metadata import ModelMetadata, read_metadata
from videonst.errors import InputError

FOLDERS = (Path(__file__).parent / "_models", Path(__file__).parent.parent / "models")
"""In an installed wheel; in a source checkout."""

SUFFIX = ".onnx"


@dataclass(frozen=True)
class Model:
    """A model file.

    Attributes:
        name: what `find_model` takes: `fast`, `fast.fp16` for the half-precision file, `fast.int8` for the 8-bit one.
        path: of the .onnx file.
        size: bytes.
        metadata: what the file says about itself.
    """

    name: str
    path: Path
    size: int
    metadata: ModelMetadata


def find_model(model: str | Path, *, precision: str = "fp32") -> Path:
    """Path of a model.

    Args:
        model: name of a shipped model, or path of an .onnx file.
        precision: "fp16" or "int8" prefers that file of a shipped model where there is one.

    Raises:
        InputError: no such model or file; near names are offered.
    """
    if Path(model).suffix == SUFFIX:
        path = Path(model).expanduser()
        if not path.is_file():
            raise InputError(f"there is no file {path}; expected an .onnx model or one of {_names()}")
        return path
    shipped = _shipped()
    for name in (f"{model}.{precision}", str(model)):
        if name in shipped:
            return shipped[name]
    near = difflib.get_close_matches(str(model), shipped, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected a path ending in .onnx or one of {_names()}"
    raise InputError(f"unknown model {str(model)!r}; {hint}")


def find_shipped(file: str) -> Path:
    """Path of a file that comes with videonst, beside the models.

    Raises:
        InputError: this installation does not hold it.
    """
    for folder in FOLDERS:
        if (folder / file).is_file():
            return folder / file
    raise InputError(f"this installation of videonst lacks {file}; expected it in {FOLDERS[0]}; install videonst again")


def list_models() -> list[Model]:
    """The shipped models, by name.

    Raises:
        InputError: a file among them is no videonst model.
    """
    return [Model(name, path, path.stat().st_size, read_metadata(path)) for name, path in _shipped().items()]


@contextlib.contextmanager
def writing_model(path: Path) -> Iterator[Path]:
    """As `videonst.atomic.replacing`, for a model file.

    Raises:
        InputError: the disk fails inside the block.
    """
    try:
        with replacing(path) as part:
            yield part
    except OSError as error:
        raise InputError(f"cannot write the model {path}: {error.strerror}; give another target") from error


def _shipped() -> dict[str, Path]:
    found = {path.stem: path for folder in FOLDERS for path in folder.glob(f"*{SUFFIX}")}
    return dict(sorted(found.items()))


def _names() -> str:
    return ", ".join(_shipped()) or "the shipped models (none are installed)"
