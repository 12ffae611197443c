"""The speed benchmark: what it measures is there and adds up, and its reports say it."""

import itertools
import json
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from videonst.bench import floor, speed, stages
from videonst.bench.floor import Convolution, Limits, count_convolutions, floor_ms
from videonst.bench.json_values import write_json
from videonst.bench.machine import describe_machine, peak_resident_mb, resident_mb
from videonst.bench.peak import said_by
from videonst.bench.speed import measure_speed
from videonst.bench.speed_report import comparison, draw_plot, make_report, tables
from videonst.bench.stages import BoundFrames, Round, measure_alternating, sample_frames
from videonst.cli import app
from videonst.engines.onnx import OnnxEngine
from videonst.errors import InputError, VideoNSTError
from videonst.models import find_model
from videonst.processor import usable_cores
from videonst.styles import StyleMix
from videonst.temporal.carry import on_host


@pytest.fixture(scope="module")
def report(small_model: Path) -> dict:
    rows = measure_speed([small_model], [(64, 48)], device="cpu", rounds=1, round_seconds=0.01)
    return make_report(list(rows), describe_machine(), {"help": [0.1, 0.2, 0.3]})


def test_every_stage_is_measured(report):
    (row,) = report["rows"]
    assert list(row["stages"]) == ["decode", "network", "flow", "stabiliser", "encode"]
    for timing in (*row["stages"].values(), row["delay"], row["through"], row["whole"]):
        assert timing["frames"] >= 3
        assert 0 < timing["p50"] <= timing["p95"] <= timing["p99"]
        assert 0 < timing["ms"] < 10_000
    assert row["whole"]["p50"] < row["whole"]["p99"]  # of single frames, as everywhere
    assert (row["model"], row["precision"], row["device"], row["size"]) == ("small", "fp32", "cpu", "64x48")
    assert row["fps"] == pytest.approx(1000 / row["whole"]["ms"], rel=1e-3)
    assert row["painters"] == usable_cores()
    assert (row["at_once"] is not None) == (usable_cores() > 1)
    on_way = row["stages"] | ({"network": row["at_once"]} if row["at_once"] else {})
    assert row["bound_ms"] >= max(timing["ms"] for timing in on_way.values()) - 1e-3
    assert row["from_floor"] == pytest.approx(row["stages"]["network"]["ms"] / row["floor_ms"], rel=0.01)


def test_several_at_once_share_the_time():
    """Two that wait for 20 ms each, side by side: 10 ms for each."""
    done = stages.at_once(lambda: time.sleep(0.02), 2, 0.2)
    assert len(done.seconds) == pytest.approx(20, abs=8)
    assert 0.009 < np.mean(done.seconds) < 0.017
    assert done.core_seconds < 0.1


def test_frames_to_frames_counts_what_was_taken_until_the_last_is_done():
    """An engine that is 5 ms busy with each frame, and 60 ms more before it gives the last ones."""

    class Engine:
        description, given = None, 0

        def stylize(self, frame, mix): ...

        def take(self, frame, mix):
            time.sleep(0.005)
            self.given += 1
            return []

        def finish(self):
            time.sleep(0.06)
            return []

    engine = Engine()
    done = stages.through(engine, itertools.repeat(None), None, 0.1)
    assert len(done.seconds) == engine.given
    assert sum(done.seconds) > 0.16
    assert len(stages.through(engine, itertools.repeat(None), None, 0).seconds) == stages.FEWEST_FRAMES


def test_rounds_alternate_and_the_first_does_not_count():
    order = []

    def stage(name: str, seconds: list[float]):
        times = iter(seconds)

        def run() -> Round:
            order.append(name)
            value = next(times)
            return Round([value, 3 * value], 8 * value)

        return run

    found = measure_alternating({"a": stage("a", [9, 1, 2, 4]), "b": stage("b", [1, 1, 1])}, 3, warm=("b",))
    assert order == ["a", *("a", "b") * 3]
    a = found["a"]  # means of the rounds: 2, 4, 8 s
    assert (a.ms, a.frames, a.core_ms) == (4000, 6, 8000)
    assert (a.p50, a.p99) == (3000, 12000)  # of 1, 2, 3, 4, 6, 12 s


@pytest.mark.parametrize("size", [(640, 360), (64, 48)])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_work_of_tiny_is_counted_as_by_hand(size, precision):
    """`tiny`: 12x12 stride 4 to 32 channels, eight 3x3 of 32 at a quarter, 3x3 to 16 at half, 3x3 to 12."""
    width, height = size
    quarter, half = width * height // 16, width * height // 4
    macs = [quarter * 3 * 144 * 32, *[quarter * 9 * 32 * 32] * 8, half * 9 * 32 * 16, half * 9 * 16 * 12]
    found = count_convolutions(find_model("tiny", precision=precision), size)
    assert [c.macs for c in found] == macs
    kinds = ["int8"] * 10 + ["fp32"] if precision == "int8" else ["fp32"] * 11
    assert [c.kind for c in found] == kinds
    body, byte = found[1], 1 if precision == "int8" else 4
    assert body.moved == byte * (((width // 4 + 2) * (height // 4 + 2) + quarter) * 32 + 9 * 32 * 32)


def test_floor_is_the_slower_of_computing_and_moving():
    limits = Limits({"fp32": 1e9, "int8": 4e9}, copy=1e8)
    busy, wide = Convolution("fp32", macs=10**7, moved=10**5), Convolution("int8", macs=10**6, moved=10**6)
    assert floor_ms([busy], limits) == pytest.approx(10)
    assert floor_ms([wide], limits) == pytest.approx(10)
    assert floor_ms([busy, wide], limits) == pytest.approx(20)


def test_limits_are_measured(monkeypatch):
    monkeypatch.setattr(floor, "_TRIES", 2)
    floor.matrix_rates.cache_clear()
    limits = floor.measure_limits([Convolution("fp32", 1, 10**6)])
    floor.matrix_rates.cache_clear()
    assert limits.rates.keys() == {"fp32", "int8"}
    assert min(*limits.rates.values(), limits.copy) > 1e7


def test_limits_of_a_device_are_measured_in_its_memory(monkeypatch):
    """The processor in a device's place: as quick as by the processor's own measurement, within what noise makes."""
    monkeypatch.setattr(floor, "_TRIES", 3)
    monkeypatch.setattr(floor, "MEMORY", {"tensorrt": "cpu"})
    monkeypatch.setattr(floor, "_DEVICE_PRODUCT", (512, 576, 256))
    monkeypatch.setattr(floor, "_DEVICE_COPY", 1 << 22)
    floor.device_limits.cache_clear()
    half, bytes_ = Convolution("fp16", macs=10**8, moved=1), Convolution("int8", macs=1, moved=1)
    limits = floor.measure_limits([half], "tensorrt")
    floor.device_limits.cache_clear()
    assert limits.rates.keys() == {"fp32", "fp16"}
    assert 0.1 < limits.rates["fp32"] / floor._matrix_rate("fp32") < 10
    assert 0.05 < limits.copy / floor._copy_bandwidth(1 << 22) < 20
    assert floor_ms([half], limits) == pytest.approx(1e11 / limits.rates["fp16"])
    assert floor_ms([half, bytes_], limits) is None
    assert floor.measure_limits([half], "coreml") is None
    assert floor_ms([half], None) is None


def test_many_cores_get_a_product_large_enough(monkeypatch):
    """Or the floor of a machine with many would lie above what it does."""
    monkeypatch.setattr(floor, "_shortest", lambda work: work() and 1.0)
    rates = []
    for cores in (1, 3):
        monkeypatch.setattr(floor, "usable_cores", lambda cores=cores: cores)
        rates.append(floor._matrix_rate("int8"))
    assert rates[1] == 3 * rates[0]


def test_bound_frames_give_what_the_engine_gives(small_model):
    """The path that times upload, network and download apart, with the processor's own memory in place of a GPU's."""
    engine, mix = OnnxEngine(small_model, "cpu"), StyleMix.parse("a:0.5,b:0.5")
    frames = [frame for _, frame in zip(range(3), sample_frames((64, 48)), strict=False)]
    before = [frame.pixels.copy() for frame in frames]
    bound = BoundFrames(engine, frames, mix, memory="cpu")
    _, statistics = engine.stylize_holding(frames[0], mix, None, 0)
    for frame in (frames[1], frames[2], frames[0], frames[1]):
        bound.upload()
        bound.compute()
        held, _ = engine.stylize_holding(frame, mix, statistics, 1)
        np.testing.assert_array_equal(bound.download(), held.pixels)
    np.testing.assert_array_equal([frame.pixels for frame in frames], before)  # an upload wrote over the first one


@pytest.mark.parametrize("memory", [None, "cpu"])
def test_the_stabiliser_is_measured_where_it_works(small_model, memory):
    """Paintings at hand lie where the engine leaves its own, here the processor's memory in place of a GPU's."""
    engine, mix = OnnxEngine(small_model, "cpu"), StyleMix.parse("a")
    frames = [frame for _, frame in zip(range(3), sample_frames((64, 48)), strict=False)]
    painted = [engine.stylize(frame, mix) for frame in frames]
    engine.memory = memory
    stage = stages.Stabilising(engine, frames, painted, mix, "fast")
    stage.next()
    past = stage._stabiliser._past
    painting, history = past.painted.result().painting, past.steadied.result().history
    assert [isinstance(value, np.ndarray) for value in (painting, history)] == [memory is None] * 2
    np.testing.assert_array_equal(on_host(painting), painted[1].pixels)


def test_sample_frames_go_on_for_ever():
    ring = sample_frames((32, 18))
    frames = [next(ring) for _ in range(140)]
    assert [frame.pts for frame in frames] == list(range(140))
    assert {frame.pixels.shape for frame in frames} == {(18, 32, 3)}
    assert np.array_equal(frames[0].pixels, frames[132].pixels)


def test_flow_at_hand_is_what_the_search_finds():
    frames = [frame for _, frame in zip(range(3), sample_frames((64, 48)), strict=False)]
    at_hand, search = stages._FlowAtHand(frames, "medium"), stages.open_flow("medium")
    greys = [at_hand.prepare(frame.pixels) for frame in frames]
    np.testing.assert_array_equal(at_hand.flow(greys[1], greys[0]), search.flow(greys[1], greys[0]))


@pytest.mark.skipif(resident_mb() is None, reason="this system does not tell the memory of a process")
def test_peak_memory_is_that_of_a_conversion_alone(report):
    """This process has torch and more in it."""
    block = np.ones(300_000_000, np.uint8)
    assert peak_resident_mb() >= resident_mb() > block.nbytes / 2**20
    assert 50 < report["rows"][0]["peak_mb"] < 600


def test_report_of_the_command(small_model, tmp_path):
    target, plot = tmp_path / "speed.json", tmp_path / "speed.png"
    options = ["--size", "64x48", "--rounds", "1", "--seconds", "0.01", "--device", "cpu"]
    done = CliRunner().invoke(app, ["bench", "speed", "-m", str(small_model), *options, "--json", str(target)])
    assert done.exit_code == 0, done.output
    assert "| `small` | 64x48 | cpu | medium |" in done.output
    report = json.loads(target.read_text())
    assert report["machine"]["versions"]["numpy"] == np.__version__
    pytest.importorskip("matplotlib")
    done = CliRunner().invoke(app, ["bench", "speed", "--show", str(target), "--plot", str(plot)])
    assert done.exit_code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    done = CliRunner().invoke(app, ["bench", "speed", "--compare", str(target), str(target)])
    assert done.output.strip().splitlines()[-1].count("1.00") == 8 + (usable_cores() > 1)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--compare", "R", "R", "--plot", "x.png"], "--compare measures nothing; leave out --plot"),
        (["--show", "R", "--json", "x.json", "--start-up"], "--show measures nothing; leave out --json and --start-up"),
        (["--compare", "R", "R", "--show", "R"], "--compare measures nothing; leave out --show"),
        (["--size", "64x48", "--json", "."], "cannot write .: it is a folder"),
        (["--size", "64x48", "--json", "R/x.json"], "cannot write R/x.json: "),
        (["--show", "torn"], "torn is not whole"),
        (["--compare", "R", "empty"], "empty is not whole"),
        (["--compare", __file__, "R"], "is no JSON"),
        (["--show", "absent"], "cannot read absent: No such file"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_measured(report, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    Path("R").write_text(json.dumps(report))
    Path("torn").write_text(json.dumps(report | {"rows": [{"model": "x"}]}))
    Path("empty").write_text(json.dumps({"format": report["format"]}))
    monkeypatch.setattr(speed, "measure_speed", lambda *_, **__: pytest.fail("measured"))
    done = CliRunner().invoke(app, ["bench", "speed", *args])
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)
    assert len(list(Path().iterdir())) == 3


def test_a_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "speed.json"
    write_json(target, {"old": 1})
    with pytest.raises(TypeError):
        write_json(target, {"new": object()})
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"cannot write .*: No space left on device"):
        write_json(target, {"new": 2})
    assert json.loads(target.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_decoded_while_a_file_is_opened_counts(monkeypatch):
    """Decoders with many threads have decoded as many frames when the first one is there."""

    class Eager:
        def __enter__(self):
            time.sleep(0.2)
            return iter(range(4))

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(stages, "open_source", lambda *_, **__: Eager())
    assert sum(stages.decode(Path("clip")).seconds) == pytest.approx(0.2, rel=0.5)
    assert sum(stages.decode(Path("clip"), "cuda").seconds) < 0.1


def test_comparison_is_new_over_old(report):
    new = json.loads(json.dumps(report))
    new["rows"][0]["stages"]["network"]["ms"] *= 2
    new["rows"].append(new["rows"][0] | {"size": "1x1"})
    lines = comparison(report, new).splitlines()
    assert len(lines) == 3  # only what both have
    assert dict(zip(lines[0].split(" | "), lines[2].split(" | "), strict=True))["network"] == "2.00"
    with pytest.raises(InputError, match="nothing to compare"):
        comparison(report, {**report, "rows": []})


def test_comparison_tells_of_another_machine(report):
    new = json.loads(json.dumps(report))
    new["machine"]["cores"] = report["machine"]["cores"] + 1
    said = comparison(report, new).splitlines()[-1]
    assert said == f"Not only the times differ: cores {report['machine']['cores']} → {new['machine']['cores']}"


@pytest.fixture
def no_peak(monkeypatch):
    """Spares the process of its own."""
    monkeypatch.setattr(speed, "peak_of_convert", lambda _, target, *__, **___: target.touch())


def test_a_model_is_told_by_its_file(report, small_model, no_peak, tmp_path):
    """Not by its tier: a style learnt on `tiny` is a `tiny` too."""
    mine = tmp_path / "mine.int8.onnx"
    mine.write_bytes(small_model.read_bytes())  # in fp32 all the same
    (row,) = measure_speed([mine], [(64, 48)], device="cpu", rounds=1, round_seconds=0.01)
    assert (row.model, row.precision) == ("mine.int8", "fp32")
    assert report["rows"][0]["model"] == small_model.stem


def test_work_in_half_precision_is_counted_as_such():
    single, half = (count_convolutions(find_model("tiny", precision=p), (64, 48)) for p in ("fp32", "fp16"))
    assert half == [Convolution("fp16", one.macs, one.moved // 2) for one in single]


def test_a_slow_first_painting_does_not_shorten_the_conversion(small_model):
    """cuDNN tries its algorithms out for seconds, and a dozen frames say little of a GPU."""
    engine, frames = OnnxEngine(small_model, "cpu"), list(itertools.islice(sample_frames((64, 48)), 3))
    calls = []

    class Slow:
        description, memory, path = engine.description, None, engine.path

        def stylize(self, frame, mix):
            calls.append(time.sleep(0.01 if calls else 0.5))
            return frame

    bench = speed._Bench(Slow(), (64, 48), Path(), 1, 0.5, "fast")
    assert bench._count(frames) > speed.FEWEST_WHOLE  # 100 where 10 ms are 10 ms


def test_stages_run_with_opencv_as_conversions_do(small_model, no_peak, monkeypatch):
    """Or their processor time, and so the bound, would be another's."""
    seen = {}

    def look(name):
        return lambda self: seen.setdefault(name, set()).add(cv2.getNumThreads())

    monkeypatch.setattr(stages.FlowBothWays, "next", look("flow"))
    monkeypatch.setattr(stages.Stabilising, "next", look("stabiliser"))
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        list(measure_speed([small_model], [(64, 48)], device="cpu", rounds=1, round_seconds=0.01))
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
    assert seen == {"flow": {1}, "stabiliser": {1}}


def test_long_rounds_are_not_counted_again_and_again(monkeypatch):
    """Adding up all frames after each of them took more processor time than what was measured."""
    monkeypatch.setattr(stages, "timed", lambda work: 1e-5)
    assert stages.each(lambda: None, 0.5).core_seconds < 2  # 50,000 frames; the square of that takes longer


def test_upload_and_download_are_measured_on_whatever_has_memory(small_model, no_peak, monkeypatch):
    """TensorRT as well as CUDA; here the processor in their place."""
    monkeypatch.setattr(speed, "MEMORY", {"cpu": "cpu"})
    (row,) = measure_speed([small_model], [(64, 48)], device="cpu", rounds=1, round_seconds=0.01)
    assert list(row.stages) == ["decode", "upload", "network", "download", "flow", "stabiliser", "encode"]


def test_what_is_not_on_the_way_is_no_bound():
    row = speed.SpeedRow(
        model="x", precision="fp16", device="cuda", size="1x1", flow="fast",
        stages={"network": timing(4), "download": timing(9)}, painters=1, at_once=None,
        delay=timing(5), through=timing(7), whole=timing(8),
        bound_ms=6, slowest_ms=4, peak_mb=None, gmacs=1, moved_mb=1, floor_ms=None,
    )  # fmt: skip
    assert (row.overlap, row.reached, row.from_floor) == (0.5, 0.75, None)


def timing(ms: float) -> stages.Timing:
    return stages.Timing(ms=ms, p50=ms, p95=ms, p99=ms, core_ms=ms, frames=1)


def test_a_process_that_fails_says_why_in_a_line():
    with pytest.raises(VideoNSTError, match=r"^a process to be measured failed: ValueError: so it is$"):
        said_by([sys.executable, "-c", "print(1); raise ValueError('so it is')"], 60)
    with pytest.raises(VideoNSTError, match="was ended by signal 9"):
        said_by([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], 60)
    with pytest.raises(VideoNSTError, match=r"took longer than 0\.2 s"):
        said_by([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)


def test_what_is_measured_is_kept_where_a_later_one_fails(report, monkeypatch, tmp_path):
    """Also where time is up: each row is on the disk as soon as it is there."""
    rows = [speed.SpeedRow(**{key: value for key, value in row.items() if key in FIELDS} | {
        "stages": {name: stages.Timing(**of) for name, of in row["stages"].items()},
        **{key: stages.Timing(**row[key]) for key in ("delay", "through", "whole")},
    }) for row in report["rows"]]  # fmt: skip

    def measure(*_, **__):
        yield rows[0]
        raise VideoNSTError("cuda failed on a frame of 3840x2160 (out of memory)")

    monkeypatch.setattr(speed, "measure_speed", measure)
    target = tmp_path / "new" / "speed.json"
    done = CliRunner().invoke(app, ["bench", "speed", "-m", "tiny", "--json", str(target)])
    assert isinstance(done.exception, VideoNSTError)
    assert [row["model"] for row in json.loads(target.read_text())["rows"]] == [rows[0].model]


FIELDS = [field.name for field in fields(speed.SpeedRow)]


@pytest.mark.parametrize(("device", "measured"), [("cpu", 4), ("cuda", 2)])
def test_by_default_a_device_measures_what_it_computes(device, measured, monkeypatch):
    asked = []
    monkeypatch.setattr(speed, "measure_speed", lambda models, *_, **__: asked.extend(models) or iter(()))
    CliRunner().invoke(app, ["bench", "speed", "--device", device])
    assert len(asked) == measured


def test_bars_of_one_model_stand_side_by_side(report, tmp_path, monkeypatch):
    """With two kinds of flow, say: one above the other they would look like one."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    row = report["rows"][0]
    drawn = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    draw_plot(tmp_path / "speed.png", {**report, "rows": [row, row | {"flow": "fast"}]})
    (axes,) = drawn[0].axes
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["small\nfp32\nmedium", "small\nfp32\nfast"]
    assert len({bar.get_x() for bar in axes.patches}) == 2


def test_table_has_the_start(report):
    assert "| help | 0.20 | 0.10 | 0.30 |" in tables(report)


@pytest.mark.parametrize(
    ("args", "wrong"),
    [
        (["--size", "65x48"], "expected even numbers"),
        (["--size", "64x48", "--flow", "medum"], "unknown flow 'medum'"),
        (["--plot", "speed.gif"], "expected a name that ends in .png"),
        (["--plot", "absent/speed.png"], "there is no directory absent"),
        (["--size", "720p"], "cannot read '720p' as a size to measure; expected WIDTHxHEIGHT"),
        (["--size", "640x"], "cannot read '640x' as a size to measure"),
    ],
)
def test_bad_input(args, wrong):
    done = CliRunner().invoke(app, ["bench", "speed", "-m", "tiny", *args])
    assert isinstance(done.exception, InputError)
    assert wrong in str(done.exception)


def test_a_row_says_how_well_the_stages_overlap(report):
    rows = list(measure_alternating({"x": lambda: Round([0.01], 0.01)}, 1).values())
    assert rows[0].fps == pytest.approx(100)
    assert replace(rows[0], ms=5).fps == 200
