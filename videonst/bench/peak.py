"""Most memory that a conversion takes, in a process of its own, which nothing before has filled."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from videonst.errors import VideoNSTError

PATIENCE = 3600.0
"""Seconds."""

_CONVERT = """
import sys, videonst
from videonst.bench.machine import peak_resident_mb
from videonst.memory import keep_freed_memory
keep_freed_memory()
source, target, model, device, flow, hwaccel = sys.argv[1:]
if model:
    stylizer = videonst.load(model, device=device)
    videonst.convert(source, target, stylizer.styles[0], model=stylizer, flow=flow, hwaccel=hwaccel or None)
else:
    videonst.convert(source, target, engine="none")
print(peak_resident_mb() or "")
"""


def peak_of_convert(
    source: Path,
    target: Path,
    model: str = "",
    *,
    device: str = "cpu",
    flow: str = "medium",
    hwaccel: str | None = None,
) -> float | None:
    """MB of resident memory at the most; None where the system does not say.

    Args:
        source, target: as for `convert`; there is no `target` yet.
        model: name or path; none passes the frames untouched.
        device, flow, hwaccel: as for `convert`.

    Raises:
        VideoNSTError: it failed, such as for want of memory.
    """
    command = [sys.executable, "-c", _CONVERT, str(source), str(target), model, device, flow, hwaccel or ""]
    said = said_by(command, PATIENCE)
    return float(said) if said.strip() else None


def said_by(command: Sequence[str], patience: float) -> str:
    """What a process writes to standard output.

    Raises:
        VideoNSTError: it failed, with the last line of what it said of that, or took longer than `patience`, seconds.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=patience
        )
    except subprocess.TimeoutExpired as error:
        raise VideoNSTError(f"a process to be measured took longer than {patience:g} s; give it less to do") from error
    if done.returncode < 0:
        raise VideoNSTError(f"a process to be measured was ended by signal {-done.returncode}; is there memory enough?")
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or "it did not say why"
        raise VideoNSTError(f"a process to be measured failed: {reason}")
    return done.stdout
