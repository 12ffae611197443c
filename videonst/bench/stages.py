"""The work of each stage of the way, to be measured alone."""

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from videonst.demo import CLIP
from videonst.engines import LooksAhead, OnDevice, Statistics
from videonst.engines.onnx import OnnxEngine
from videonst.frame import Frame, Pixels
from videonst.live.meter import percentile
from videonst.resize import scaled
from videonst.sinks import open_sink
from videonst.sources import open_source
from videonst.styles import StyleMix
from videonst.temporal import Stabiliser
from videonst.temporal.flow import Field, flow_there, open_flow

RATE = 24
"""Frames per second of the clip."""

FEWEST_FRAMES = 3
"""Of a round, however long they take."""


@dataclass(frozen=True)
class Timing:
    """What a frame costs in one stage.

    Attributes:
        ms: milliseconds a frame: median over the rounds of their means. Codecs hand out frames in batches, so only
            the mean says what one costs.
        p50, p95, p99: percentiles over the single frames, ms.
        core_ms: processor time a frame, all threads together, ms.
        frames: how many were measured.
    """

    ms: float
    p50: float
    p95: float
    p99: float
    core_ms: float
    frames: int

    @property
    def fps(self) -> float:
        return 1000 / self.ms


@dataclass(frozen=True)
class Round:
    """Seconds of single frames, and processor time of all of them."""

    seconds: list[float]
    core_seconds: float


def each(work: Callable[[], object], seconds: float) -> Round:
    """`work` frame by frame for `seconds`, `FEWEST_FRAMES` times or more."""
    found: list[float] = []
    spent, core = 0.0, time.process_time()
    while spent < seconds or len(found) < FEWEST_FRAMES:
        found.append(timed(work))
        spent += found[-1]
    return Round(found, time.process_time() - core)


def at_once(work: Callable[[], object], workers: int, seconds: float) -> Round:
    """`work` in so many threads at once for `seconds`; each piece of work counts as the time divided by all of them."""
    core, began = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(lambda _: len(each(work, seconds).seconds), range(workers)))
    spent = time.perf_counter() - began
    return Round([spent / sum(done)] * sum(done), time.process_time() - core)


def measure_alternating(
    stages: dict[str, Callable[[], Round]], rounds: int, warm: Collection[str] = ()
) -> dict[str, Timing]:
    """Timings of `stages`, which take turns. A round before the first warms up all but those that are `warm`."""
    found: dict[str, list[Round]] = {name: [] for name in stages}
    for number in range(rounds + 1):
        for name, stage in stages.items():
            if number == 0 and name in warm:
                continue
            done = stage()
            if number:
                found[name].append(done)
    return {name: _timing(done) for name, done in found.items()}


def _timing(rounds: Sequence[Round]) -> Timing:
    frames = [1000 * seconds for done in rounds for seconds in done.seconds]
    return Timing(
        ms=float(np.median([1000 * np.mean(done.seconds) for done in rounds])),
        p50=percentile(frames, 50),
        p95=percentile(frames, 95),
        p99=percentile(frames, 99),
        core_ms=float(np.median([1000 * done.core_seconds / len(done.seconds) for done in rounds])),
        frames=len(frames),
    )


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def sample_frames(size: tuple[int, int]) -> Iterator[Frame]:
    """The sample clip at (width, height), again and again, at a constant rate."""
    number = itertools.count()
    while True:
        with open_source(CLIP) as source:
            for frame in source:
                pixels = scaled(frame.pixels, size)
                yield replace(frame, pixels=pixels, pts=next(number), time_base=Fraction(1, RATE), duration=1)


def write_clip(target: Path, frames: Iterator[Frame]) -> None:
    """As H.264 at the default quality, without sound."""
    with open_sink(target, overwrite=True) as sink:
        for frame in frames:
            sink.write(frame)


def decode(clip: Path, hwaccel: str | None = None) -> Round:
    core, opened = time.process_time(), time.perf_counter()
    found: list[float] = []
    with open_source(clip, hwaccel=hwaccel) as source:
        opening = time.perf_counter() - opened
        frames = iter(source)
        while True:
            began = time.perf_counter()
            if next(frames, None) is None:
                break
            found.append(time.perf_counter() - began)
    # A decoder with many threads has decoded as many frames when the first one is there; opening hardware is no work of
    # that kind, and it decodes frame by frame.
    early = 0.0 if hwaccel else opening / len(found)
    return Round([seconds + early for seconds in found], time.process_time() - core)


def encode(target: Path, painted: Sequence[Frame], count: int) -> Round:
    core = time.process_time()
    found: list[float] = []
    with open_sink(target, overwrite=True) as sink:
        for frame in itertools.islice(onwards(painted), count):
            found.append(timed(lambda frame=frame: sink.write(frame)))  # type: ignore[misc]
        began = time.perf_counter()
    rest = (time.perf_counter() - began) / count  # what the encoder still held
    return Round([seconds + rest for seconds in found], time.process_time() - core)


def onwards(frames: Sequence[Frame]) -> Iterator[Frame]:
    """Forth and back without end or jump, time running on."""
    order = itertools.cycle((*frames, *frames[-2:0:-1]))
    return (replace(frame, pts=number) for number, frame in enumerate(order))


def through(engine: LooksAhead, frames: Iterator[Frame], mix: StyleMix, seconds: float) -> Round:
    """Frames from memory through `engine`, as `convert` sends them, for `seconds` and until the last is done."""
    count, core, began = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - began < seconds or count < FEWEST_FRAMES:
        engine.take(next(frames), mix)
        count += 1
    engine.finish()
    spent = time.perf_counter() - began
    return Round([spent / count] * count, time.process_time() - core)


class FlowBothWays:
    """What the stabiliser asks of the flow for each frame."""

    def __init__(self, frames: Sequence[Frame], flow: str) -> None:
        self._flow = open_flow(flow)
        self._frames = onwards(frames)
        self._past = self._flow.prepare(next(self._frames).pixels)

    def next(self) -> None:
        grey = self._flow.prepare(next(self._frames).pixels)
        self._flow.flow(grey, self._past)
        flow_there(self._flow, self._past, grey)
        self._past = grey


class Stabilising:
    """The stabiliser with flow and paintings at hand: what it costs itself. Where the engine leaves its paintings on a
    device, they are there, and what is shown is brought down."""

    def __init__(
        self, engine: OnnxEngine, frames: Sequence[Frame], painted: Sequence[Frame], mix: StyleMix, flow: str
    ) -> None:
        self._mix = mix
        self._frames = onwards(frames)
        self._stabiliser = Stabiliser(_AtHand(engine, frames, painted), flow=_FlowAtHand(frames, flow))
        self._stabiliser.stylize(next(self._frames), mix)

    def next(self) -> None:
        self._stabiliser.stylize(next(self._frames), self._mix)


class _AtHand:
    """An engine that has painted everything already, and left it where `engine` does."""

    def __init__(self, engine: OnnxEngine, frames: Sequence[Frame], painted: Sequence[Frame]) -> None:
        self.description, self.memory = engine.description, engine.memory
        self._painted = {id(frame.pixels): picture for frame, picture in zip(frames, painted, strict=True)}
        self._left = {}
        if self.memory:
            from onnxruntime import OrtValue

            self._left = {
                pixels: OrtValue.ortvalue_from_numpy(np.ascontiguousarray(picture.pixels)[None], self.memory, 0)
                for pixels, picture in self._painted.items()
            }

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        return self._painted[id(frame.pixels)]

    def stylize_on_device(
        self, frame: Frame, mix: StyleMix, statistics: Statistics | OnDevice | None, hold: float
    ) -> tuple[OnDevice, OnDevice | None]:
        return self._left[id(frame.pixels)], None


class _FlowAtHand:
    """Flow that was found before."""

    name = "at hand"

    def __init__(self, frames: Sequence[Frame], preset: str) -> None:
        flow = open_flow(preset)
        self._grey = {id(frame.pixels): flow.prepare(frame.pixels) for frame in frames}
        greys = [self._grey[id(frame.pixels)] for frame in frames]
        self._found = {
            (id(a), id(b)): flow.flow(a, b)
            for one, other in itertools.pairwise(greys)
            for a, b in ((one, other), (other, one))
        }

    def prepare(self, pixels: Pixels) -> Pixels:
        return self._grey[id(pixels)]

    def flow(self, first: Pixels, second: Pixels) -> Field:
        return self._found[id(first), id(second)]


class BoundFrames:
    """Upload, network and download of an engine apart, with held statistics where the model can hold any.

    Args:
        engine: on a device; where it has CUDA graphs for this size, the network is one of them.
        frames: of one size, uploaded in turn.
        mix: what to paint.
        memory: where the device keeps its tensors, as ONNX Runtime calls it.
    """

    def __init__(self, engine: OnnxEngine, frames: Sequence[Frame], mix: StyleMix, memory: str = "cuda") -> None:
        from videonst.engines.device_memory import FixedBuffers

        self._weights = mix.weights([style.name for style in engine.description.styles])
        self._ring = itertools.cycle([np.ascontiguousarray(frame.pixels)[None] for frame in frames])
        _, statistics = engine.stylize_holding(frames[0], mix, None, 0)
        self._held = {} if statistics is None else {"statistics": statistics, "hold": np.ones(1, np.float32)}
        held = engine.held_session() if self._held else None
        height, width, _ = frames[0].pixels.shape
        graphs = (engine.held_graphs if held else engine.graphs).get((height, width))
        sides = {"height": height, "width": width, "slots": self._weights.shape[1]}
        self._buffers = (graphs and graphs.borrow()) or FixedBuffers(held or engine.session, sides, memory)
        self.upload()

    def upload(self) -> None:
        self._buffers.put({"frame": next(self._ring), "style_weights": self._weights, **self._held})

    def compute(self) -> None:
        self._buffers.run()

    def download(self) -> Pixels:
        pixels: Pixels = self._buffers.outputs()["stylized"].numpy()[0]
        return pixels
