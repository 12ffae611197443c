"""What reports hold, and how they are written."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videonst.atomic import replacing
from videonst.errors import InputError


def check_json(path: Path) -> None:
    """Makes its folder; before there is anything to write, which may take an hour.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; name another file") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: it is a folder, or in one that is read-only; name another file")


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """The whole report, or what was there before.

    Raises:
        InputError: it cannot be written.
    """
    check_json(path)
    try:
        with replacing(path) as part:
            part.write_text(json.dumps(report, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; name another file") from error


def rounded(value: Any, digits: int) -> Any:
    """Every float within lists, tuples and mappings with that many decimals."""
    if isinstance(value, dict):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner, digits) for inner in value]
    return round(value, digits) if isinstance(value, float) else value
