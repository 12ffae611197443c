"""Painting from CUDA graphs: what a frame of one size takes is recorded once, and started in one go from then on
instead of operator by operator.

Why it is done as it is here, by ONNX Runtime 1.31 (sources of its CUDA provider, and the installed library):

- A graph belongs to the thread that recorded it; other threads would record their own. One thread runs them all.
- It reads and writes where it did when it was recorded: `FixedBuffers`. What it wrote is handed out as it lies there.
  Until that is let go the graph rests, and another one paints, with buffers of its own.
- Its intermediate results lie in memory that other runs of the session are given too. So the session is for the graphs
  alone, runs one at a time, and leaves nothing but what is in the buffers.
- It is kept until its session is closed: a session for each size, so that a size can be given up.
- It is recorded in `cudaStreamCaptureModeGlobal`: meanwhile most calls of CUDA fail in all other threads, and the
  recording with them. So it is recorded when asked for, not when a frame of another size comes along.
"""

import logging
import queue
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from videonst.engines import OnDevice, Statistics
from videonst.engines.device_memory import FixedBuffers
from videonst.engines.providers import one_line
from videonst.errors import VideoNSTError
from videonst.frame import Pixels

log = logging.getLogger(__name__)

OLDEST = (1, 31)
"""ONNX Runtime. Before its change 32121 a graph could read memory of the processor that others had been given since."""

GRAPHS = 6
"""Of a size: paintings that may be held at once, those under way included. A stabiliser holds up to three, and one more
for every frame that is painted beside."""

_TRIALS = 3
"""Frames that each graph is tried on: with statistics of its own, entirely held ones, and half held ones."""

TOLERANCE = 1
"""Levels by which a replayed painting may differ from one by the same session without a graph."""


class CudaGraphs:
    """Graphs of a session for frames of one size. May be used from several threads, but is made while nothing else in
    the process uses the GPU.

    Args:
        session: opened with `cuda_graphs`, for these graphs alone.
        sides: "height" and "width" of the frames, and "slots" of the model.
        memory: see `KeepsOnDevice`.

    Attributes:
        failed: a graph has not run, and none is to be used again.

    Raises:
        VideoNSTError: a graph does not paint what the session paints without it, or ONNX Runtime is too old.
        Exception: ONNX Runtime's, where nothing can be recorded.
    """

    def __init__(self, session: ort.InferenceSession, sides: Mapping[str, int], memory: str) -> None:
        if tuple(map(int, ort.__version__.split(".")[:2])) < OLDEST:
            raise VideoNSTError(f"they need ONNX Runtime {'.'.join(map(str, OLDEST))} or later")
        self.failed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="videonst-graph")
        self._idle: queue.SimpleQueue[Graph] = queue.SimpleQueue()
        frames = [_waves((sides["height"], sides["width"]), step) for step in range(_TRIALS)]
        try:
            graphs = [Graph(session, sides, memory, number, self._thread) for number in range(GRAPHS)]
            for graph in graphs:
                graph.rehearse(frames)
            for graph in graphs:  # again, as those recorded later must not have got in its way
                graph.rehearse(frames[:1])
                self._idle.put(graph)
        except BaseException:
            self.close()
            raise

    def paint(self, feed: Mapping[str, npt.NDArray[Any] | OnDevice]) -> tuple[OnDevice, Statistics | None] | None:
        """Paints from a graph that does not rest.

        Args:
            feed: inputs of the model.

        Returns:
            As `KeepsOnDevice.stylize_on_device`; None where all graphs rest, or one has failed.
        """
        graph = self.borrow()
        if graph is None:
            return None
        try:
            graph.put(feed)
            graph.run()
            outputs = graph.outputs()
            used = outputs["used_statistics"].numpy().copy() if "used_statistics" in outputs else None
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            if not self.failed:
                log.warning("paintings are made without CUDA graphs from now on: %s", one_line(error))
            self.failed = True
            return None
        painting = outputs["stylized"]
        weakref.finalize(painting, self._idle.put, graph).atexit = False
        return painting, used

    def borrow(self) -> "Graph | None":
        """A graph that nobody else is given; None where there is none. After an error or Ctrl-C it is not given back,
        as it may be running still."""
        if self.failed:
            return None
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        """Gives up the graphs. Their memory is free when the last painting is let go."""
        self.failed = True
        self._thread.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get_nowait()


class Graph(FixedBuffers):
    """One graph and its buffers.

    Args:
        session, sides, memory: as for `CudaGraphs`.
        number: of the graph in its session, from 0.
        thread: that records and replays it.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        sides: Mapping[str, int],
        memory: str,
        number: int,
        thread: ThreadPoolExecutor,
    ) -> None:
        super().__init__(session, sides, memory)
        self._thread, self._replayed, self._plain = thread, _options(number), _options(_WITHOUT)

    def run(self, options: ort.RunOptions | None = None) -> None:
        """Paints what was put, from the graph where there are no other options. The first such run records it."""
        self._thread.submit(super().run, options or self._replayed).result()

    def rehearse(self, frames: Sequence[Pixels]) -> None:
        """Records it, if it is not, and compares it with the session without it, while frame, weights and statistics
        change.

        Raises:
            VideoNSTError: they differ.
            Exception: ONNX Runtime's, where it cannot be recorded.
        """
        feed: dict[str, npt.NDArray[Any]] = {}
        for step, pixels in enumerate(frames):
            first = np.eye(*self.inputs()["style_weights"], dtype=np.float32)
            self.put(feed | {"frame": pixels[None], "style_weights": np.roll(first, step + 1, axis=1)})
            # In this order: a graph that does nothing must not find the right painting there.
            found, expected = self._outcome(self._replayed), self._outcome(self._plain)
            wrong = int(np.abs(np.subtract(found["stylized"], expected["stylized"], dtype=np.int16)).max())
            if wrong > TOLERANCE:
                raise VideoNSTError(f"a trial came back {wrong} levels off")
            if "hold" not in self.inputs():
                feed = {"statistics": np.full(self.inputs()["statistics"], 1 / (1 + step), np.float32)}
            elif "used_statistics" in found:
                feed = {"statistics": found["used_statistics"], "hold": np.array([1 / (1 + step)], np.float32)}

    def _outcome(self, options: ort.RunOptions) -> dict[str, npt.NDArray[Any]]:
        self.run(options)
        return {name: value.numpy().copy() for name, value in self.outputs().items()}


def _waves(size: tuple[int, int], step: int) -> Pixels:
    """A frame to try it on, another one in each step."""
    row, column, channel = np.ogrid[: size[0], : size[1], :3]
    across = 100 * np.sin(column / (5 + step) + channel)
    down = np.cos(row / 7)
    return (128 + across.astype(np.float32) * down.astype(np.float32)).astype(np.uint8)


def _options(number: int) -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options


_WITHOUT = -1
"""In place of the number of a graph: none (ONNX Runtime, `kOrtRunOptionsConfigCudaGraphAnnotation`)."""
