"""The second graph of a model file, for frames whose normalisation statistics are held entirely: most of a film."""

import logging
import threading

import numpy as np
import onnxruntime as ort

from videonst.engines import trial
from videonst.engines.providers import one_line, open_session

log = logging.getLogger(__name__)


class HeldSession:
    """A session of the second graph, opened and tried when it is first asked for. May be asked from several threads.

    Args:
        model: the second graph; None where the file has none.
        slots: of the model, the photograph's included.
        device, threads: as for `open_session`.
        whole: session of the file's own graph there.
    """

    def __init__(
        self, model: bytes | None, slots: int, device: str, threads: int | None, whole: ort.InferenceSession
    ) -> None:
        self.model = model
        self._slots, self._device, self._threads, self._whole = slots, device, threads, whole
        self._lock = threading.Lock()
        self._session: ort.InferenceSession | None = None

    def beside(self, threads: int, whole: ort.InferenceSession) -> "HeldSession":
        """Another one, for a session `whole` with so many threads."""
        return HeldSession(self.model, self._slots, self._device, threads, whole)

    def get(self) -> ort.InferenceSession | None:
        """The session; None where the file has no second graph, or this device does not paint with it what it paints
        with the first: a warning says so then."""
        with self._lock:
            if self._session is None and self.model is not None:
                self._session = self._opened(self.model)
                self.model = self.model if self._session else None
            return self._session

    def _opened(self, model: bytes) -> ort.InferenceSession | None:
        feed = {"frame": trial.ramp()[None], "style_weights": np.eye(1, self._slots, 1, dtype=np.float32)}
        try:
            session = open_session(model, self._device, self._threads)
            expected, feed["statistics"] = self._whole.run(["stylized", "used_statistics"], feed)
            wrong = trial.levels_off(session.run(None, feed)[0], expected)
            reason = f"a trial came back {wrong} levels off"
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            wrong, reason = 255, one_line(error)
        if wrong <= trial.TOLERANCE:
            return session
        self._warn(reason)
        return None

    def give_up(self, reason: str) -> None:
        """Has `get` give None from now on, and says so in a warning, once."""
        with self._lock:
            if self.model is not None:
                self._warn(reason)
            self.model = self._session = None

    def _warn(self, reason: str) -> None:
        log.warning("frames with held statistics are painted no quicker than others on %s: %s", self._device, reason)
