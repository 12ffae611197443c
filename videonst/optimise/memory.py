"""What an optimisation needs of memory, and what fits."""

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from videonst.errors import InputError, VideoNSTError

BYTES_PER_PIXEL = {"fp32": 2900, "bf16": 1450}
"""Growth of the peak with VGG-19: the activations up to relu5_1 that the gradient needs, and the largest gradients. In
bf16 measured from 640x360 to 1280x720 (docs/benchmarks/offline.md), in fp32 twice that."""

BYTES_PER_REGION = {"fp32": 500, "bf16": 250}
"""For a pixel of the picture, of each region of a mask but the first: its share of the activations of the style layers,
122 values, which the gradient needs."""

HISTORY_BYTES_PER_PIXEL = 2 * 3 * 4
"""Of a step that L-BFGS remembers: the step and the change of the gradient, fp32 RGB."""

FIXED_BYTES = 1100 << 20
"""Interpreter, libraries and weights."""

USABLE = 0.9
"""Share of the machine's memory that is taken where no limit is given."""


def needed_bytes(width: int, height: int, **work: Any) -> int:
    """What optimising a picture of this size takes at its peak; `work` is as for `bytes_per_pixel`."""
    return FIXED_BYTES + width * height * bytes_per_pixel(**work)


def bytes_per_pixel(*, half: bool, history: int = 0, regions: int = 1) -> int:
    """Growth of the peak.

    Args:
        half: in bfloat16.
        history: steps that L-BFGS remembers.
        regions: of the mask.
    """
    precision = "bf16" if half else "fp32"
    of_regions = (regions - 1) * BYTES_PER_REGION[precision]
    return BYTES_PER_PIXEL[precision] + history * HISTORY_BYTES_PER_PIXEL + of_regions


def fitting_size(width: int, height: int, limit: int, **work: Any) -> tuple[int, int]:
    """The largest (width, height) of the same shape, even, that `limit` bytes hold; (0, 0) where none does."""
    per_pixel = bytes_per_pixel(**work)
    factor = min(1.0, (max(0.0, limit - FIXED_BYTES) / per_pixel / (width * height)) ** 0.5)
    return int(width * factor / 2) * 2, int(height * factor / 2) * 2


def check_memory(width: int, height: int, limit: int | None, *, device: str = "cpu", **work: Any) -> None:
    """
    Raises:
        InputError: the picture needs more than `limit` bytes (None: the device has); the size that fits is named.
    """
    allowed = limit if limit is not None else device_bytes(device)
    needed = needed_bytes(width, height, **work)
    if allowed is None or needed <= allowed:
        return
    fits = fitting_size(width, height, allowed, **work)
    advice = f"{fits[0]}x{fits[1]} fits: --resize {fits[0]}x{fits[1]}" if min(fits) >= LEAST_SIDE else "none fits"
    raise InputError(
        f"optimising {width}x{height} needs about {needed / 1e9:.1f} GB, "
        f"{'the limit' if limit is not None else 'what may be used here'} is {allowed / 1e9:.1f} GB; {advice}"
    )


LEAST_SIDE = 32
"""Pixels: relu5_1 has two positions there."""


def device_bytes(device: str) -> int | None:
    """Memory that may be used, of a GPU, of the machine or of the container that this runs in; None where it is not
    known."""
    if device != "cpu":
        return int(USABLE * torch.cuda.get_device_properties(device).total_memory)
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        whole = min(whole, int(CONTAINER_LIMIT.read_text()))
    return int(USABLE * whole)


CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Linux, control groups version 2: bytes, or "max"."""


def parse_bytes(text: str) -> int:
    """Reads `4GB`, `800M` or `2.5 GiB`.

    Raises:
        InputError: another text.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    size = float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " ") if match else 0
    if size < 1:
        raise InputError(f"cannot read {text!r} as an amount of memory; expected such as 4GB or 800MB")
    return int(size)


@contextmanager
def explained(width: int, height: int) -> Iterator[None]:
    """Turns a want of memory inside the block into a `VideoNSTError` that names a smaller size."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "allocate memory" not in str(error):
            raise
        half = int(width / 4) * 2, int(height / 4) * 2
        raise VideoNSTError(
            f"out of memory at {width}x{height}; try a quarter of it: --resize {half[0]}x{half[1]}"
        ) from error
