"""How long the user waits before anything happens."""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from videonst.bench.peak import said_by
from videonst.demo import CLIP

TRIES = 5
PATIENCE = 60.0
"""Seconds for one process."""


def measure_start_up(tries: int = TRIES) -> dict[str, list[float]]:
    """Seconds of whole processes, from start to end, sorted: `videonst --help`, `import videonst`, and converting a
    single frame of the sample clip with `tiny` on the CPU, loading the model included. The processes alternate."""
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "frame.mp4")
        one_frame = ["convert", str(CLIP), target, "-s", "udnie", "-m", "tiny", "--device", "cpu"]
        commands = {
            "python": ["-c", "pass"],
            "import": ["-c", "import videonst"],
            "help": ["-m", "videonst", "--help"],
            "first_frame": ["-m", "videonst", *one_frame, "--duration", "0.04", "--overwrite"],
        }
        found: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(tries):
            for name, command in commands.items():
                found[name].append(_seconds(command))
    return {name: sorted(seconds) for name, seconds in found.items()}


def _seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    said_by([sys.executable, *command], PATIENCE)
    return round(time.perf_counter() - began, 3)
