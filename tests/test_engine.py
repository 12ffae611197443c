"""The fast engine: what it paints, what it refuses, and that the device is the one that was asked for."""

import base64
import itertools
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest

from videonst.engines import Engine, HoldsStatistics, onnx, providers
from videonst.engines.onnx import OnnxEngine
from videonst.engines.providers import DeviceError, check_device, check_devices
from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.styles import StyleMix


@pytest.fixture(scope="module")
def engine(small_model) -> Engine:
    return OnnxEngine(small_model, "cpu", threads=1)


def picture(height: int, width: int) -> Frame:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Frame(cv2.GaussianBlur(pixels, (0, 0), 2), pts=12, time_base=Fraction(1001, 30000), duration=1)


def distance(a: Frame, b: Frame) -> float:
    return float(np.abs(a.pixels.astype(int) - b.pixels).mean())


@pytest.mark.parametrize("size", [(16, 16), (16, 17), (31, 18), (60, 80)])
def test_size_and_time_stay(engine, size):
    frame = picture(*size)
    painted = engine.stylize(frame, StyleMix.parse("a"))
    assert painted.pixels.shape == frame.pixels.shape
    assert painted.pixels.dtype == np.uint8
    assert (painted.pts, painted.time_base, painted.duration) == (12, Fraction(1001, 30000), 1)
    assert distance(painted, frame) > 5


def test_one_style_alone_equals_its_row_of_weights(engine, small_model):
    frame = picture(40, 44)
    session = ort.InferenceSession(small_model, providers=["CPUExecutionProvider"])
    for slot, name in enumerate("abc", start=1):
        weights = np.eye(4, dtype=np.float32)[slot : slot + 1]
        (expected,) = session.run(["stylized"], {"frame": frame.pixels[None], "style_weights": weights})
        assert np.array_equal(engine.stylize(frame, StyleMix.parse(name)).pixels, expected[0])


def test_styles_differ(engine):
    frame = picture(40, 44)
    a, b, c = (engine.stylize(frame, StyleMix.parse(n)) for n in "abc")
    assert min(distance(a, b), distance(b, c), distance(a, c)) > 5


def test_mixtures_run_smoothly_from_one_style_to_the_other(engine):
    frame = picture(40, 44)
    steps = [engine.stylize(frame, StyleMix.parse(f"a:{20 - i},b:{i}")) for i in range(21)]
    assert np.array_equal(steps[0].pixels, engine.stylize(frame, StyleMix.parse("a")).pixels)
    assert np.array_equal(steps[-1].pixels, engine.stylize(frame, StyleMix.parse("b")).pixels)
    whole = distance(steps[0], steps[-1])
    assert max(distance(x, y) for x, y in itertools.pairwise(steps)) < whole / 3


def test_strength_runs_smoothly_from_the_photograph(engine):
    frame = picture(40, 44)
    steps = [engine.stylize(frame, StyleMix.parse("a", strength=i / 20)) for i in range(27)]
    assert steps[0] is frame
    assert distance(steps[1], frame) < distance(steps[20], frame) / 3
    assert max(distance(x, y) for x, y in itertools.pairwise(steps)) < distance(steps[20], frame) / 3


def test_strength_zero_does_not_run_the_network(engine, monkeypatch):
    monkeypatch.setattr(onnx, "_run", None)
    frame = picture(40, 44)
    assert engine.stylize(frame, StyleMix.parse("a", strength=0)) is frame


def test_keep_colour_takes_luma_of_the_painting_and_chroma_of_the_photograph(engine):
    # Muted colours and a little strength, so that no combination leaves the RGB cube.
    frame = picture(40, 44)
    frame = frame.with_pixels((frame.pixels // 4 + 96).astype(np.uint8))
    mix = StyleMix.parse("a", strength=0.3)
    painted = engine.stylize(frame, mix)
    kept = engine.stylize(frame, StyleMix.parse("a", strength=0.3, keep_colour=True))
    of = {k: cv2.cvtColor(v.pixels, cv2.COLOR_RGB2YCrCb).astype(int) for k, v in
          {"photo": frame, "painted": painted, "kept": kept}.items()}  # fmt: skip
    assert np.abs(of["kept"][..., 0] - of["painted"][..., 0]).max() <= 2
    assert np.abs(of["kept"][..., 1:] - of["photo"][..., 1:]).max() <= 2
    assert np.abs(of["painted"][..., 1:] - of["photo"][..., 1:]).max() > 5


def test_pixels_may_lie_anywhere_in_memory(engine):
    frame = picture(40, 44)
    flipped = frame.with_pixels(frame.pixels[:, ::-1])
    mix = StyleMix.parse("a")
    expected = engine.stylize(frame.with_pixels(np.ascontiguousarray(flipped.pixels)), mix)
    assert np.array_equal(engine.stylize(flipped, mix).pixels, expected.pixels)


def test_statistics_are_held_on_request(engine):
    first, second = picture(40, 44), picture(44, 40)
    mix = StyleMix.parse("a:1,b:1")
    assert isinstance(engine, HoldsStatistics)
    plain, statistics = engine.stylize_holding(first, mix, None, 0.9)
    assert np.array_equal(plain.pixels, engine.stylize(first, mix).pixels)
    loose, own = engine.stylize_holding(second, mix, statistics, 0.0)
    assert np.array_equal(loose.pixels, engine.stylize(second, mix).pixels)
    held, used = engine.stylize_holding(second, mix, statistics, 0.75)
    assert not np.array_equal(held.pixels, loose.pixels)
    stem = np.s_[:, : 2 * 32]  # means and variances of what no held statistics lie before
    np.testing.assert_allclose(used[stem], (0.75 * statistics + 0.25 * own)[stem], rtol=1e-3, atol=1e-4)
    same, kept = engine.stylize_holding(first, mix.with_strength(0), statistics, 0.5)
    assert same is first
    assert kept is statistics


def test_a_model_file_without_statistics_paints_as_ever(engine, monkeypatch):
    monkeypatch.setattr(engine, "_holds", False)
    frame, mix = picture(40, 44), StyleMix.parse("a")
    painted, statistics = engine.stylize_holding(frame, mix, None, 0.5)
    assert np.array_equal(painted.pixels, engine.stylize(frame, mix).pixels)
    assert statistics is None


def calls_of(session):
    """Inputs of a session's runs from now on."""
    asked = []

    class Watched:
        def __getattr__(self, name):
            return getattr(session, name)

        def run(self, outputs, feed):
            asked.append(sorted(feed))
            return session.run(outputs, feed)

    return Watched(), asked


def test_frames_with_statistics_held_entirely_are_painted_by_the_second_graph(small_model):
    """And no others; the statistics in use are those that were given."""
    engine, mix = OnnxEngine(small_model, "cpu", threads=1), StyleMix.parse("a:0.6,b:0.4")
    engine.session, asked = calls_of(engine.session)
    _, statistics = engine.stylize_holding(picture(40, 44), mix, None, 1)
    frame = picture(48, 44)
    own, _ = engine.stylize_holding(frame, mix, statistics, 0)
    nearly, _ = engine.stylize_holding(frame, mix, statistics, 0.999999)
    assert asked == [["frame", "style_weights"]] + 2 * [["frame", "hold", "statistics", "style_weights"]]
    held, used = engine.stylize_holding(frame, mix, statistics, 1)
    assert len(asked) == 3
    assert used is statistics
    assert np.abs(held.pixels.astype(int) - nearly.pixels).max() <= 1
    assert distance(held, own) > 0.5


def test_the_second_graph_is_not_used_where_it_paints_otherwise(small_model, monkeypatch, caplog):
    expected = OnnxEngine(small_model, "cpu", threads=1)
    frame, mix = picture(40, 44), StyleMix.parse("a")
    _, statistics = expected.stylize_holding(picture(48, 44), mix, None, 0)
    weights, whole = mix.weights(["a", "b", "c"]), expected.session
    feed = {"frame": frame.pixels[None], "style_weights": weights, "statistics": statistics}
    (painting,) = whole.run(["stylized"], feed | {"hold": np.ones(1, np.float32)})

    class Wrong:
        def __init__(self, model, device, threads):
            self._session = REAL_SESSION(model, device, threads)

        def run(self, outputs, feed):
            return [255 - value for value in self._session.run(outputs, feed)]

    class Failing(Wrong):
        def run(self, outputs, feed):
            if feed["frame"].shape[1] != 32:  # after the trial
                raise RuntimeError("out of memory")
            return self._session.run(outputs, feed)

    for session, reason in ((Wrong, "levels off"), (Failing, "out of memory")):
        caplog.clear()
        monkeypatch.setattr("videonst.engines.held.open_session", session)
        engine = OnnxEngine(small_model, "cpu", threads=1)
        for _ in range(2):
            found, used = engine.stylize_holding(frame, mix, statistics, 1)
            assert np.array_equal(found.pixels, painting[0])
            np.testing.assert_allclose(used, statistics, rtol=1e-5)
        (record,) = caplog.records
        assert "painted no quicker than others on cpu" in record.getMessage()
        assert reason in record.getMessage()


REAL_SESSION = providers.open_session


def test_a_model_file_without_a_second_graph(small_model, monkeypatch):
    expected = OnnxEngine(small_model, "cpu", threads=1)
    old = replace(expected.metadata, held=None)
    monkeypatch.setattr(onnx, "read_metadata", lambda path: old)
    engine, mix = OnnxEngine(small_model, "cpu", threads=1), StyleMix.parse("a")
    assert engine.held_session() is None
    _, statistics = engine.stylize_holding(picture(48, 44), mix, None, 0)
    found, used = engine.stylize_holding(picture(40, 44), mix, statistics, 1)
    held, _ = expected.stylize_holding(picture(40, 44), mix, statistics, 1)
    assert np.abs(found.pixels.astype(int) - held.pixels).max() <= 1
    np.testing.assert_allclose(used, statistics, rtol=1e-5)


@pytest.mark.parametrize(
    ("threads", "size", "painters", "each"),
    [(4, (64, 48), 4, 1), (4, (854, 480), 2, 2), (4, (1280, 720), 1, 4), (1, (64, 48), 1, 1), (5, (854, 480), 2, 2)],
)
def test_small_frames_are_painted_side_by_side(small_model, threads, size, painters, each):
    """On a processor, each by its share of the cores; to the same picture."""
    engine = OnnxEngine(small_model, "cpu", threads)
    beside, count = engine.side_by_side(*size)
    assert count == painters
    for session in (beside.session, beside.held_session()):
        assert session.get_session_options().intra_op_num_threads == each
    assert beside.description == engine.description
    assert engine.side_by_side(*size)[0] is beside  # for the next input too
    frame, mix = picture(48, 64), StyleMix.parse("a")
    painted, expected = (one.stylize(frame, mix).pixels.astype(int) for one in (beside, engine))
    assert np.abs(painted - expected).max() <= 1


def test_a_gpu_is_sent_a_frame_while_it_paints_another(engine, monkeypatch):
    """Not two of the largest, for want of memory; devices without a memory of their own are asked for one at a time."""
    for device, size, painters in (
        ("cuda", (64, 48), 2), ("tensorrt", (1920, 1080), 2), ("cuda", (3840, 2160), 1), ("coreml", (64, 48), 1),
    ):  # fmt: skip
        monkeypatch.setattr(engine, "_device", device)
        assert engine.side_by_side(*size) == (engine, painters)


def test_description(engine):
    description = engine.description
    assert (description.name, description.device, description.precision) == ("tiny", "cpu", "fp32")
    assert [style.name for style in description.styles] == ["a", "b", "c"]
    assert description.size.minimum == 16


@pytest.mark.parametrize("size", [(15, 40), (40, 15)])
def test_too_small_a_frame(engine, size):
    with pytest.raises(InputError, match="expected sides of 16 pixels or more"):
        engine.stylize(picture(*size), StyleMix.parse("a"))


def test_unknown_style(engine):
    with pytest.raises(InputError, match="unknown style 'starry'; the styles are a, b, c"):
        engine.stylize(picture(20, 20), StyleMix.parse("starry", strength=0))


def test_failing_device_is_one_line(engine, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : out of memory\nstack")

    monkeypatch.setattr(onnx, "_run", fail)
    with pytest.raises(VideoNSTError, match=r"cpu failed on a frame of 20x20 \(out of memory\)") as caught:
        engine.stylize(picture(20, 20), StyleMix.parse("a"))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_auto_takes_what_works_and_says_which(small_model, caplog):
    with caplog.at_level("INFO"):
        device = OnnxEngine(small_model, threads=1).description.device
    assert check_device(device).works
    assert f"repainting with small.onnx on {device}" in caplog.text


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "coreml"])
def test_a_device_that_does_not_work_is_an_error(small_model, device, capfd):
    if check_device(device).works:
        pytest.skip(f"{device} works here")
    capfd.readouterr()
    with pytest.raises(DeviceError, match=f"device {device} does not work") as caught:
        OnnxEngine(small_model, device)
    if device != "coreml":
        assert 'pip install "videonst[cuda]"' in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # ONNX Runtime keeps its own warnings to itself


def test_silent_fallback_of_onnx_runtime_is_detected(small_model, monkeypatch):
    class FallenBack(ort.InferenceSession):
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(ort, "InferenceSession", lambda model, options, **_: FallenBack(model, options))
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(providers, "_load_libraries", lambda device: "")
    with pytest.raises(DeviceError, match="CUDAExecutionProvider could not be loaded"):
        OnnxEngine(small_model, "cuda")


def test_a_device_that_computes_wrongly_is_refused(small_model, monkeypatch):
    monkeypatch.setattr(onnx, "_run", lambda session, pixels, weights: pixels + 3)
    with pytest.raises(DeviceError, match="computes wrongly"):
        OnnxEngine(small_model, "cpu")


def test_unknown_device_and_threads(small_model):
    with pytest.raises(InputError, match="unknown device 'gpu'; expected one of auto, "):
        OnnxEngine(small_model, "gpu")
    with pytest.raises(InputError, match="threads is 0"):
        OnnxEngine(small_model, "cpu", threads=0)


def test_half_precision_on_the_cpu_is_warned_of(small_network, tmp_path, caplog):
    from videonst.engines.metadata import StyleInfo
    from videonst.export import export_onnx

    path = tmp_path / "small.fp16.onnx"
    export_onnx(small_network, path, styles=[StyleInfo(name=n) for n in "abc"], precision="fp16")
    assert OnnxEngine(path, "cpu", threads=1).description.precision == "fp16"
    assert "half precision, which is slow on the CPU" in caplog.text


@pytest.fixture
def opened(monkeypatch) -> list[tuple[str, dict[str, str]]]:
    """A TensorRT that opens everything, and what its sessions were opened with."""
    options: list[tuple[str, dict[str, str]]] = []

    class Session:
        def __init__(self, *_: object, providers: list[tuple[str, dict[str, str]]], **__: object) -> None:
            options[:] = providers

        def get_providers(self) -> list[str]:
            return [name for name, _ in options]

    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setattr(providers, "_load_libraries", lambda device: "")
    return options


def test_engines_of_tensorrt_are_kept_by_the_content_of_the_model(opened, monkeypatch, tmp_path):
    """ONNX Runtime tells them apart by the file's name and the graph only, and would paint with old weights."""
    monkeypatch.setenv("VIDEONST_HOME", str(tmp_path / "home"))
    models = {"one": b"weights", "two": b"others!", "three": b"weights"}
    caches = {}
    for folder, content in models.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my.onnx").write_bytes(content)
        providers.open_session(tmp_path / folder / "my.onnx", "tensorrt")
        caches[folder] = opened[0][1]["trt_engine_cache_path"]
        assert Path(caches[folder]).is_dir()
    assert caches["one"] == caches["three"] != caches["two"]
    providers.open_session(b"weights", "tensorrt")
    assert opened[0][1]["trt_engine_cache_path"] == caches["one"]


def test_what_tensorrt_lacks_stays_on_the_gpu(opened, monkeypatch, tmp_path):
    monkeypatch.setenv("VIDEONST_HOME", str(tmp_path))
    providers.open_session(b"", "tensorrt")
    assert [name for name, _ in opened] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]


def test_eight_bits_are_for_processors(monkeypatch):
    """ONNX Runtime would do their convolutions on the CPU, whatever device was asked for."""
    for device in ("cuda", "tensorrt", "coreml"):
        with pytest.raises(InputError, match=r"tiny\.int8\.onnx is in 8 bits.*--device cpu"):
            OnnxEngine("tiny.int8", device)
    real, tried = onnx.open_session, []

    def everything_works(path, device, threads):
        tried.append(device)
        return real(path, "cpu", threads)

    monkeypatch.setattr(onnx, "open_session", everything_works)
    assert OnnxEngine("tiny.int8", threads=1).description.device == "cpu"
    assert tried == ["cpu"]


def test_devices_are_reported():
    reports = {r.device: r for r in check_devices()}
    assert list(reports) == ["tensorrt", "cuda", "coreml", "cpu"]
    assert reports["cpu"].works
    for report in reports.values():
        assert bool(report.reason) is not report.works


def test_probe_model_is_what_it_says():
    onnx = pytest.importorskip("onnx", reason="needs the [train] extra")
    model = onnx.load_from_string(providers.PROBE_MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert base64.b64encode(model.SerializeToString()) == base64.b64encode(providers.PROBE_MODEL)


def test_two_distributions_of_onnx_runtime_are_found(monkeypatch):
    installed = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(providers, "_version", installed.get)
    message = providers.distribution_conflict()
    assert message is not None
    assert "onnxruntime and onnxruntime-gpu are both installed" in message
    assert providers.install_command("cuda").startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install")
    del installed["onnxruntime"]
    assert providers.distribution_conflict() is None


@pytest.mark.parametrize("module", ["videonst.engines.onnx", "videonst.models"])
def test_run_time_floor_needs_no_torch(module):
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'onnx', 'onnxscript'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["videonst.engines", "videonst.models"])
def test_importing_the_package_does_not_load_onnx_runtime(module):
    code = f"import sys, {module}; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
