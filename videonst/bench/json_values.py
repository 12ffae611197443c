"""What reports hold, and how they are written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videonst.errors import InputError


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; name another file") from error


def rounded(value: Any, digits: int) -> Any:
    """Every float within lists, tuples and mappings with that many decimals."""
    if isinstance(value, dict):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner, digits) for inner in value]
    return round(value, digits) if isinstance(value, float) else value
