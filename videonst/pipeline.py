"""Source to sink: decoding, repainting and encoding at the same time, in bounded memory."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, Full, Queue

from videonst.frame import Frame
from videonst.sinks import Sink
from videonst.sources import Source, Stoppable


@dataclass(frozen=True)
class PipelineProgress:
    """How far a run has come.

    Attributes:
        frames_done: frames that the sink has taken.
        frames_total: what the source states, None where it does not say.
        frames_per_second: mean since the start of this run.
        seconds_left: estimate, None where the total is unknown or nothing is done yet.
        frames_lost: frames and pictures of a damaged input that could not be read; known at the end.
    """

    frames_done: int
    frames_total: int | None
    frames_per_second: float
    seconds_left: float | None
    frames_lost: int = 0


def run(
    source: Source,
    repaint: Callable[[Frame], Frame | Sequence[Frame]],
    sink: Sink,
    *,
    finish: Callable[[], Sequence[Frame]] | None = None,
    progress: Callable[[PipelineProgress], None] | None = None,
    queue_size: int = 4,
    frames_before: int = 0,
) -> PipelineProgress:
    """Sends every frame of `source` through `repaint` into `sink`, and returns the final progress.

    Decoding and encoding have a thread each; `repaint` and `progress` run in the calling thread, so that a GPU context
    or a window stays where it was made and Ctrl-C arrives here. At most `queue_size` frames wait before and after
    `repaint`, which may give one frame for each, or none now and several later; `finish` gives what is left after the
    last. `frames_before` were done by an earlier run and count as done. Opening and closing source and sink is
    the caller's part (their `with` blocks).

    Raises:
        BaseException: the first one raised by a stage, unchanged. By then all stages have stopped.
    """
    stages = _Stages()
    decoded = _Channel(queue_size, stages.stopping)
    repainted = _Channel(queue_size, stages.stopping)
    meter = _Meter(source.info.frame_count, frames_before)

    def decode() -> None:
        for frame in source:
            decoded.put(frame)
        decoded.put(None)

    def encode() -> None:
        for frame in repainted:
            sink.write(frame)
            meter.frames_done += 1

    try:
        stages.start(decode)
        stages.start(encode)
        for frame in decoded:
            painted = repaint(frame)
            for ready in (painted,) if isinstance(painted, Frame) else painted:
                repainted.put(ready)
            if progress:
                progress(meter.read())
        for ready in finish() if finish else ():
            repainted.put(ready)
        repainted.put(None)
    except BaseException as error:
        stages.stop(error)
        if isinstance(source, Stoppable):
            source.stop()
    stages.join()
    final = meter.read()
    if progress:
        progress(final)
    return final


class _Stopped(Exception):  # noqa: N818 - a signal between stages, never an error
    """Another stage has failed."""


class _Stages:
    """The threads of a run, and the first error of any stage."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                if not self.stopping.is_set():
                    work()
            except BaseException as error:
                self.stop(error)

        thread = threading.Thread(target=guarded, name=f"videonst-{work.__name__}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self, error: BaseException) -> None:
        if not isinstance(error, _Stopped):
            self._errors.append(error)
        self.stopping.set()

    def join(self) -> None:
        """Waits for all stages, then raises the first error."""
        try:
            self._wait()
        except BaseException as interruption:  # Ctrl-C: the stages must still end before their files are closed
            self.stop(interruption)
            self._wait()
        if self._errors:
            raise self._errors[0]

    def _wait(self) -> None:
        for thread in self._threads:
            # Ctrl-C while a thread starts leaves open whether it does. One that starts later finds `stopping` set.
            for _ in range(_STARTING):
                with contextlib.suppress(RuntimeError):
                    thread.join()
                    break
                time.sleep(_POLL_SECONDS)


class _Channel:
    """A bounded queue between two stages, ended by None, that lets go of both when the run stops."""

    def __init__(self, size: int, stopping: threading.Event) -> None:
        self._queue: Queue[Frame | None] = Queue(size)
        self._stopping = stopping

    def put(self, frame: Frame | None) -> None:
        while not self._stopping.is_set():
            try:
                return self._queue.put(frame, timeout=_POLL_SECONDS)
            except Full:
                pass
        raise _Stopped

    def __iter__(self) -> Iterator[Frame]:
        while not self._stopping.is_set():
            try:
                frame = self._queue.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            if frame is None:
                return
            yield frame
        raise _Stopped


_STARTING = 3
"""Times that a thread is looked for which may not have started."""

_POLL_SECONDS = 0.1
"""How soon a waiting stage notices that another has failed."""


class _Meter:
    """Counts in the encoding thread, is read in the calling one."""

    def __init__(self, total: int | None, frames_before: int) -> None:
        self.frames_done = self._before = frames_before
        self._total = total
        self._started = time.monotonic()

    def read(self) -> PipelineProgress:
        done = self.frames_done
        rate = (done - self._before) / max(time.monotonic() - self._started, 1e-9)
        left = max(0, self._total - done) / rate if self._total and rate else None
        return PipelineProgress(done, self._total, rate, left)
