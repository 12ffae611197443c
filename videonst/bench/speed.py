"""How long each stage of the way takes alone, how long all of them take together, and how far that is from the floor.

A stage is measured over several rounds in which the stages alternate, so that a busy moment of the machine does not
fall on one of them alone; what comes before the first round warms up and does not count.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from videonst.api import FILE_FLOW, Stylizer, convert, looking_ahead, opencv_beside
from videonst.bench.floor import count_convolutions, floor_ms, measure_limits
from videonst.bench.peak import peak_of_convert
from videonst.bench.stages import (
    FEWEST_FRAMES,
    BoundFrames,
    FlowBothWays,
    Round,
    Stabilising,
    Timing,
    at_once,
    decode,
    each,
    encode,
    measure_alternating,
    onwards,
    sample_frames,
    through,
    timed,
    write_clip,
)
from videonst.engines.onnx import OnnxEngine
from videonst.engines.providers import MEMORY
from videonst.errors import InputError
from videonst.frame import Frame
from videonst.processor import usable_cores
from videonst.sources.hardware import check_hardware, trouble
from videonst.styles import StyleMix
from videonst.temporal.flow import open_flow

HELD_FRAMES = 24
"""Frames kept in memory for the stages between the files: a second of a film."""

ROUND_SECONDS = 1.5
"""A stage ends its round after so long."""

FEWEST_DECODED = 72
"""Frames of the clip that is decoded."""

FEWEST_WHOLE, MOST_WHOLE = 12, 144
"""Frames of a conversion from file to file; between, as many as keep the network busy for two rounds of a stage."""


@dataclass(frozen=True)
class SpeedRow:
    """One model at one size.

    Attributes:
        model: name of the file, without precision.
        precision, device: as they ran.
        size: "WIDTHxHEIGHT".
        flow: how motion was found.
        stages: each alone.
        painters: frames that `convert` has painted at once.
        at_once: the network with so many frames at once; None where it is one.
        delay: from a frame to its painted, steadied result, the flow beside the network: what live painting adds.
        through: painted and steadied from frames in memory to frames in memory, as many at once as in `convert`.
        whole: `convert` from file to file; opening counts to the first frame, closing to the last.
        bound_ms: the least that overlapping can reach: the slowest stage on the way, or the processor time of all of
            them over the cores, whichever is more.
        slowest_ms: the slowest stage on the way.
        peak_mb: most resident memory of a process that converts; None where the system does not say.
        gmacs, moved_mb: what the network's convolutions must do for a frame, see `videonst.bench.floor`.
        floor_ms: the least time in which the processor or device could do that, from what it was seen to do; None
            where that is not known.
        hwaccel: what decoded, None in software.
    """

    model: str
    precision: str
    device: str
    size: str
    flow: str
    stages: dict[str, Timing]
    painters: int
    at_once: Timing | None
    delay: Timing
    through: Timing
    whole: Timing
    bound_ms: float
    slowest_ms: float
    peak_mb: float | None
    gmacs: float
    moved_mb: float
    floor_ms: float | None
    hwaccel: str | None = None

    @property
    def from_floor(self) -> float | None:
        """Time of the network over the floor; None where there is none."""
        return self.stages["network"].ms / self.floor_ms if self.floor_ms else None

    @property
    def overlap(self) -> float:
        """Rate of `convert` over that of its slowest stage alone."""
        return self.slowest_ms / self.whole.ms

    @property
    def reached(self) -> float:
        """Rate of `convert` over the bound."""
        return self.bound_ms / self.whole.ms


def measure_speed(
    models: Sequence[str | Path],
    sizes: Sequence[tuple[int, int]],
    *,
    device: str = "auto",
    rounds: int = 3,
    round_seconds: float = ROUND_SECONDS,
    flow: str = FILE_FLOW,
    cuda_graphs: bool = False,
    hwaccel: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[SpeedRow]:
    """Every model at every size, on the sample clip brought to that size.

    Args:
        models: as `load` takes them.
        sizes: (width, height), even numbers of pixels.
        device: as `load` takes it.
        rounds: how many times each stage has its turn.
        round_seconds: of one stage.
        flow: how motion is found, as `convert` takes it.
        cuda_graphs: steadied frames and the network alone are painted from CUDA graphs, where that works: `device` of
            a row is then "cuda graphs".
        hwaccel: what decodes, as `convert` takes it.
        report: is told what is measured next.

    Raises:
        InputError: unknown model, device or flow, a size that cannot be encoded, CUDA graphs on another
            device, or `hwaccel` does not decode here.
        VideoNSTError: a conversion in a process of its own failed.
    """
    open_flow(flow)
    for width, height in sizes:
        if width % 2 or height % 2 or min(width, height) < 16:
            raise InputError(f"size {width}x{height}; expected even numbers of 16 or more")
    if hwaccel is not None:
        check_hardware(hwaccel)
    engines = {str(model): OnnxEngine(model, device) for model in models}
    with tempfile.TemporaryDirectory() as folder:
        for (width, height), (name, engine) in itertools.product(sizes, engines.items()):
            report(f"{name} at {width}x{height}")
            if cuda_graphs:
                engine.capture_graphs(width, height)
            yield _Bench(engine, (width, height), Path(folder), rounds, round_seconds, flow, hwaccel).measure()


class _Bench:
    """One model at one size."""

    def __init__(
        self,
        engine: OnnxEngine,
        size: tuple[int, int],
        folder: Path,
        rounds: int,
        seconds: float,
        flow: str,
        hwaccel: str | None = None,
    ) -> None:
        self._engine, self._stylizer = engine, Stylizer(engine)
        self._size, self._folder = size, folder
        self._rounds, self._seconds, self._flow, self._hwaccel = rounds, seconds, flow, hwaccel
        self._mix = StyleMix.parse(engine.description.styles[0].name)

    def measure(self) -> SpeedRow:
        engine = self._engine
        frames = list(itertools.islice(sample_frames(self._size), HELD_FRAMES))
        count = self._count(frames)
        clip = self._folder / "clip.mp4"
        write_clip(clip, itertools.islice(sample_frames(self._size), count))
        if self._hwaccel is not None and (reason := trouble(self._hwaccel, clip)):
            raise InputError(f"frames of {'x'.join(map(str, self._size))} would be decoded in software: {reason}")
        painted = [engine.stylize(frame, self._mix) for frame in frames]
        reel = clip  # a few frames would be decoded while the file is opened
        if count < FEWEST_DECODED:
            reel = self._folder / "reel.mp4"
            write_clip(reel, itertools.islice(sample_frames(self._size), FEWEST_DECODED))
        beside, painters = engine.side_by_side(*self._size)
        stages = {
            "decode": lambda: decode(reel, self._hwaccel),
            **self._network(frames),
            "flow": lambda: self._beside(FlowBothWays(frames, self._flow).next),
            "stabiliser": lambda: self._beside(Stabilising(engine, frames, painted, self._mix, self._flow).next),
            "encode": lambda: encode(self._folder / "encoded.mp4", painted, 3 * HELD_FRAMES),
            "delay": lambda: self._each(self._steadied(frames)),
            "through": lambda: self._through(frames),
            "whole": lambda: self._convert(clip, count),
        }
        if painters > 1 and "upload" not in stages:  # on a device frames share the way there, not the work
            stages["at once"] = lambda: at_once(self._held(beside, frames), painters, self._seconds)
        path, device = str(engine.path), engine.description.device
        peak = peak_of_convert(
            clip, self._folder / "peak.mp4", path, device=device, flow=self._flow, hwaccel=self._hwaccel
        )
        (self._folder / "peak.mp4").unlink()
        timings = measure_alternating(stages, self._rounds, warm=("whole",))
        delay, over, whole = (timings.pop(name) for name in ("delay", "through", "whole"))
        many = timings.pop("at once", None)
        way = timings | ({"network": many} if many else {})
        # Paintings that are steadied on the device do not come down: what is shown does, with the stabiliser.
        on_way = [timing for name, timing in way.items() if name != "download" or not engine.memory]
        slowest = max(timing.ms for timing in on_way)
        about = self._stylizer.description
        convolutions = count_convolutions(self._engine.path, self._size)
        return SpeedRow(
            model=engine.path.stem.removesuffix(f".{about.precision}"),
            precision=about.precision,
            device=f"{about.device} graphs" if engine.graphs.get(self._size[::-1]) else about.device,
            size="x".join(map(str, self._size)),
            flow=self._flow,
            stages=timings,
            painters=painters,
            at_once=many,
            delay=delay,
            through=over,
            whole=whole,
            bound_ms=max(slowest, sum(timing.core_ms for timing in on_way) / usable_cores()),
            slowest_ms=slowest,
            peak_mb=peak,
            gmacs=sum(c.macs for c in convolutions) / 1e9,
            moved_mb=sum(c.moved for c in convolutions) / 1e6,
            floor_ms=floor_ms(convolutions, measure_limits(convolutions, about.device)),
            hwaccel=self._hwaccel,
        )

    def _count(self, frames: Sequence[Frame]) -> int:
        """Frames of a conversion. The first painting does not count: devices try out what is quickest."""
        self._engine.stylize(frames[0], self._mix)
        few = frames[:FEWEST_FRAMES]
        painting = timed(lambda: [self._engine.stylize(frame, self._mix) for frame in few]) / len(few)
        return min(max(round(2 * self._seconds / painting), FEWEST_WHOLE), MOST_WHOLE)

    def _network(self, frames: Sequence[Frame]) -> dict[str, Callable[[], "Round"]]:
        engine = self._engine
        if memory := MEMORY.get(engine.description.device):
            bound = BoundFrames(engine, frames, self._mix, memory)
            return {
                "upload": lambda: self._each(bound.upload),
                "network": lambda: self._each(bound.compute),
                "download": lambda: self._each(bound.download),
            }
        return {"network": lambda: self._each(self._held(engine, frames))}

    def _held(self, engine: OnnxEngine, frames: Sequence[Frame]) -> Callable[[], object]:
        """Painting with statistics held, as nearly all frames of a steadied shot are painted. For several threads."""
        _, statistics = engine.stylize_holding(frames[0], self._mix, None, 0)
        numbers = itertools.count()
        return lambda: engine.stylize_holding(frames[next(numbers) % len(frames)], self._mix, statistics, 1)

    def _steadied(self, frames: Sequence[Frame]) -> Callable[[], object]:
        steady = self._stylizer.steady(flow=self._flow)
        ring = onwards(frames)
        steady.stylize(next(ring), self._mix)
        return lambda: steady.stylize(next(ring), self._mix)

    def _through(self, frames: Sequence[Frame]) -> "Round":
        engine = looking_ahead(self._engine, *self._size, flow=open_flow(self._flow))
        with opencv_beside(self._engine.description.device):
            return through(engine, onwards(frames), self._mix, self._seconds)

    def _convert(self, clip: Path, count: int) -> "Round":
        core, times = time.process_time(), [time.perf_counter()]
        convert(
            clip,
            self._folder / "converted.mp4",
            self._mix,
            model=self._stylizer,
            flow=self._flow,
            hwaccel=self._hwaccel,
            overwrite=True,
            progress=lambda _: times.append(time.perf_counter()),
        )
        times[count:] = [time.perf_counter()]  # the last frame is there when the file is
        return Round([now - then for then, now in itertools.pairwise(times)], time.process_time() - core)

    def _beside(self, work: Callable[[], object]) -> "Round":
        """With as many threads of OpenCV's as `convert` leaves it."""
        with opencv_beside(self._engine.description.device):
            return self._each(work)

    def _each(self, work: Callable[[], object]) -> "Round":
        return each(work, self._seconds)
