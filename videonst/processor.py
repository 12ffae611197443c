"""How much of the processor this process may use."""

import math
import os
from pathlib import Path


def usable_cores() -> int:
    """Processor cores that this process may use: those of its affinity mask (taskset, cpuset), or as many as its
    control group has the time of (docker --cpus), whichever are fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _quota() or cores)


def thread_limit() -> int:
    """Threads for a library that would else take one for each core of the machine, and bind them to cores that this
    process may not use: `usable_cores`, or 0, its own choice, where nothing is withheld."""
    cores = usable_cores()
    return cores if cores < (os.cpu_count() or 1) else 0


_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def _quota() -> int | None:
    """Cores whose time the control group (version 2) may use, rounded up; None where it sets no limit."""
    try:
        own = next(line[3:] for line in _OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
        quota, period = (_CONTROL_GROUPS / own.lstrip("/") / "cpu.max").read_text().split()
        return None if quota == "max" else max(math.ceil(int(quota) / int(period)), 1)
    except (OSError, StopIteration, ValueError):
        return None
