"""What a learning leaves on the disk: the state to go on with, and what shows how far it is."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from videonst.atomic import replacing
from videonst.errors import InputError, VideoNSTError


class LearningFolder:
    """`state.pt`, `log.jsonl`, `progress.json`, `preview.png`; and a file `stop`, by which others end the learning.

    Args:
        path: made if missing.
        resume: keep what an earlier run has left; else it is removed.

    Attributes:
        preview: the picture of how far it is.

    Raises:
        InputError: the folder cannot be written to.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path, self.preview = path, path / "preview.png"
        self._state, self._log, self._stop = path / "state.pt", path / "log.jsonl", path / "stop"
        try:
            path.mkdir(parents=True, exist_ok=True)
            for left in (self._stop,) if resume else (self._stop, self._log, self._state):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {path}: {error.strerror}; give another target") from error

    @property
    def stop_asked(self) -> bool:
        return self._stop.exists()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a failure of the disk inside the block into a `VideoNSTError`."""
        try:
            yield
        except OSError as error:
            raise self._full(error) from error

    def tell(self, progress: dict[str, Any]) -> None:
        """Replaces `progress.json`; what is not known yet (nan) is null there."""
        with self.writing(), replacing(self.path / "progress.json") as part:
            part.write_text(json.dumps(_plain(progress)), encoding="utf-8")

    def log(self, entry: dict[str, Any]) -> None:
        with self.writing(), self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")

    def save(self, task: dict[str, Any], state: dict[str, Any]) -> None:
        """Keeps the state of a task for `load`."""
        try:
            with replacing(self._state) as part:
                torch.save({"task": task, **state}, part)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            raise self._full(error) from error

    def load(self, task: dict[str, Any], device: torch.device) -> dict[str, Any]:
        """
        Raises:
            InputError: there is no state, a damaged one, or that of another task.
        """
        if not self._state.exists():
            raise InputError(f"there is nothing to resume in {self.path}; learn without --resume")
        try:
            state: dict[str, Any] = torch.load(self._state, map_location=device, weights_only=True)
            found = state["task"]
        except Exception as error:  # torch raises a dozen kinds for a foreign or broken file
            raise InputError(f"{self._state} is damaged; learn without --resume") from error
        if found != task:
            raise InputError(
                f"{self.path} holds another task (other pictures, features, base or settings); "
                "give those it was begun with, or learn without --resume"
            )
        return state

    def _full(self, error: Exception) -> VideoNSTError:
        return VideoNSTError(f"cannot write to {self.path}: {error}; free some space and go on with --resume")


def _plain(value: Any) -> Any:
    """For JSON, which has no nan."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
