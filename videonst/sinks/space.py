"""Whether there is room for what is to be written."""

import shutil
from pathlib import Path

from videonst.errors import InputError
from videonst.sources import SourceInfo

LEAST_VIDEO_BITS = 0.01
"""Bits per pixel that no usable H.264 goes below: a tenth of what crf 28 takes for a talking head."""

LEAST_PICTURE_BITS = 0.1
"""Bits per pixel of a picture file that is not all of one colour."""


def check_space(target: Path, source: SourceInfo, bits_per_pixel: float) -> None:
    """Refuses what obviously cannot fit; the real size is known only when it is written.

    Args:
        target: the file or folder to be written.
        source: says how many pixels there will be; where it does not, nothing is checked.
        bits_per_pixel: `LEAST_VIDEO_BITS` or `LEAST_PICTURE_BITS`.

    Raises:
        InputError: with both sizes.
    """
    folder = next((f for f in (target, *target.parents) if f.is_dir()), None)
    if folder is None or source.frame_count is None:
        return
    needed = source.frame_count * source.width * source.height * bits_per_pixel / 8
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{target} will take at least {_size(needed)}, but {folder} has {_size(free)} left; free some space or "
            "write elsewhere"
        )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
