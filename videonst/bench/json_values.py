"""What reports hold."""

from typing import Any


def rounded(value: Any, digits: int) -> Any:
    """Every float within lists, tuples and mappings with that many decimals."""
    if isinstance(value, dict):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner, digits) for inner in value]
    return round(value, digits) if isinstance(value, float) else value
