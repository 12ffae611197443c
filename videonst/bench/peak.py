"""Most memory that a conversion takes, in a process of its own, which nothing before has filled."""

import subprocess
import sys
from pathlib import Path

PATIENCE = 3600.0
"""Seconds."""

_CONVERT = """
import sys, videonst
from videonst.bench.machine import peak_resident_mb
from videonst.memory import keep_freed_memory
keep_freed_memory()
source, target, model, device, flow = sys.argv[1:]
if model:
    stylizer = videonst.load(model, device=device)
    videonst.convert(source, target, stylizer.styles[0], model=stylizer, flow=flow)
else:
    videonst.convert(source, target, engine="none")
print(peak_resident_mb() or "")
"""


def peak_of_convert(
    source: Path, target: Path, model: str = "", *, device: str = "cpu", flow: str = "medium"
) -> float | None:
    """MB of resident memory at the most; None where the system does not say.

    Args:
        source, target: as for `convert`; there is no `target` yet.
        model: name or path; none passes the frames untouched.
        device, flow: as for `convert`.
    """
    command = [sys.executable, "-c", _CONVERT, str(source), str(target), model, device, flow]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    return float(done.stdout) if done.stdout.strip() else None
