"""How many cores are taken, where not all may be."""

import os
import subprocess
import sys

import pytest

from videonst import processor
from videonst.processor import thread_limit, usable_cores

NEEDS_MASKS = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")

PAINT = """
import os, sys
from pathlib import Path
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})
from videonst.engines.onnx import OnnxEngine
engine = OnnxEngine(sys.argv[1], "cpu")
print({core} == set().union(*(os.sched_getaffinity(int(task.name)) for task in Path("/proc/self/task").iterdir())))
"""


@NEEDS_MASKS
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one core only")
def test_the_network_stays_on_the_cores_it_may_use(small_model):
    """ONNX Runtime binds a thread to each core of the machine, whatever mask it was started with."""
    done = subprocess.run(
        [sys.executable, "-c", PAINT, str(small_model)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
    ],
)
def test_the_time_of_the_control_group_counts(limit, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(processor, "_CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(processor, "_OWN_GROUP", tmp_path / "own")
    (tmp_path / "own").write_text("1:name=systemd:/else\n0::/some/job\n")
    (tmp_path / "some" / "job").mkdir(parents=True)
    (tmp_path / "some" / "job" / "cpu.max").write_text(limit)
    assert usable_cores() == cores
    assert thread_limit() == (cores if cores < 8 else 0)


def test_without_control_groups_the_mask_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(processor, "_OWN_GROUP", tmp_path / "absent")
    assert (usable_cores(), thread_limit()) == (2, 2)
