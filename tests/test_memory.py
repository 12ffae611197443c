"""Freed memory stays with the process."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from videonst.memory import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(9)
def paint():
    a = np.ones(1_000_000, np.float32)
    b = a + 1
    return a * b
paint()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    paint()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Page faults of 20 rounds of pictures of 4 MB, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")},
    )  # fmt: skip
    if done.returncode == 9:
        pytest.skip("no glibc here")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own settings")
def test_pictures_reuse_the_memory_of_earlier_ones():
    assert faults("kept") < faults("as it is") / 4
