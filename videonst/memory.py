"""Memory that pictures leave is kept for the next ones."""

import ctypes
import os

LARGEST_KEPT = 32 * 2**20
"""Bytes: blocks up to this size come from memory that was freed before; the most that glibc allows."""

KEPT = 256 * 2**20
"""Bytes that stay with the process when they are free at the end of its heap."""


def keep_freed_memory() -> bool:
    """Tells glibc, which else gives the memory of every picture back to the system and gets it anew, a page fault for
    each 4 KB: at 1280x720 10 of the stabiliser's milliseconds. For programs, not for a library: it holds for the whole
    process (mallopt(3)).

    Returns:
        Whether it was told: only where there is glibc, and nothing else was asked for in the environment.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; TypeError on Windows
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, KEPT))


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h."""
