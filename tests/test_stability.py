"""The ruler: measures against clips whose truth is known, and the benchmark over them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_stabiliser import BoilingEngine, texture
from typer.testing import CliRunner

from videonst.bench.scenes import Scene, clip_scene, sintel_scenes, still_scene, synthetic_scene
from videonst.bench.stability import (
    Row,
    draw_plot,
    measure,
    measure_engine,
    measure_folder,
    measure_hold,
    measure_input,
    summarise,
    write_inputs,
    write_report,
)
from videonst.cli import app
from videonst.errors import InputError
from videonst.frame import Frame
from videonst.styles import StyleMix
from videonst.temporal.metrics import Motion, estimated_motion, flicker, sharpness, warping_error


def shifted(step: int = 3) -> tuple[np.ndarray, np.ndarray, Motion]:
    """Two views of a texture, and the exact motion: everything moves left by `step` pixels."""
    scene = texture(60, 90)
    first, second = scene[:, :80].copy(), scene[:, step : 80 + step].copy()
    flow = np.zeros((60, 80, 2), np.float32)
    flow[..., 0] = -step
    valid = np.ones((60, 80), bool)
    valid[:, :step] = False
    return first, second, Motion(flow, valid)


def test_warping_error_of_an_exact_motion_is_nothing():
    first, second, motion = shifted()
    assert warping_error(first, second, motion) < 1e-6
    wrong = Motion(np.zeros_like(motion.flow), motion.valid)
    assert warping_error(first, second, wrong) > 0.03


def test_warping_error_is_the_root_mean_square_where_valid():
    first = np.full((8, 10, 3), 100, np.uint8)
    second = first.copy()
    second[:, 5:] += 51  # a fifth of the range
    motion = Motion(np.zeros((8, 10, 2), np.float32), np.ones((8, 10), bool))
    assert warping_error(first, second, motion) == pytest.approx(0.2 * np.sqrt(0.5))
    motion.valid[:, 5:] = False
    assert warping_error(first, second, motion) == 0
    motion.valid[:] = False
    assert np.isnan(warping_error(first, second, motion))


def test_estimated_motion_finds_a_shift_and_what_left_the_frame():
    first, second, truth = shifted()
    found = estimated_motion(first, second)
    assert np.abs(found.flow - truth.flow)[found.valid].mean() < 0.1
    assert found.valid[5:-5, 10:-10].mean() > 0.9
    assert found.valid[:, 0].mean() < 0.2


def test_flicker_and_sharpness():
    grey = np.full((4, 4, 3), 100, np.uint8)
    still = flicker([grey, grey, grey])
    assert (still.step, still.deviation, still.drift) == (0, 0, 0)
    boiling = flicker([grey, grey + 10, grey, grey + 10])
    assert (boiling.step, boiling.deviation, boiling.drift) == (10, 5, 10)
    picture = texture(60, 80)
    assert sharpness(cv2.GaussianBlur(picture, (0, 0), 2)) < 0.7 * sharpness(picture)


def test_flow_of_the_synthetic_scene_is_exact():
    """Moved along its own flow a frame is the next one, up to linear sampling and the fading light."""
    scene = synthetic_scene(14, height=90, width=160)
    assert {second - first for first, second in scene.motions} == {1, 5, 10}
    for (first, second), motion in scene.motions.items():
        assert motion.valid.mean() > 0.4
        a, b = (scene.frames[i].astype(np.float32) / scene.frames[i][motion.valid].mean() for i in (first, second))
        error = warping_error((a * 100).astype(np.uint8), (b * 100).astype(np.uint8), motion)
        still = Motion(np.zeros_like(motion.flow), motion.valid)
        assert error < 0.35 * warping_error((a * 100).astype(np.uint8), (b * 100).astype(np.uint8), still)


def small_scenes() -> list[Scene]:
    return [synthetic_scene(14, height=72, width=128), still_scene(14)]


def test_steadier_positions_of_the_knob_score_better():
    rows = list(measure_engine(BoilingEngine(), small_scenes(), ["a"], [0.5, 0.75], flow="fast"))
    assert len(rows) == 2 * 3
    plain, half, most = summarise(rows)
    assert (plain["steady"], half["steady"], most["steady"]) == (0, 0.5, 0.75)
    assert plain["sharpness"] == 1
    assert plain["change"]["step"] == 0
    assert plain["step"] > half["step"] > most["step"]
    assert most["change"]["step"] < -0.8
    assert plain["synthetic_error_1"] > half["synthetic_error_1"] > most["synthetic_error_1"]
    assert most["change"]["synthetic_error_1"] < -0.3


def test_frames_of_another_program_are_measured_alike(tmp_path: Path):
    scenes = small_scenes()
    write_inputs(tmp_path / "inputs", scenes)
    synthetic, still = measure_folder(tmp_path / "inputs", scenes)
    assert synthetic.errors == pytest.approx(measure_input(scenes)[0].errors)
    assert still.step == pytest.approx(measure_input(scenes)[1].step)
    assert synthetic.sharpness is None
    (tmp_path / "inputs" / "still" / "0003.png").unlink()
    with pytest.raises(InputError, match=r"scene still has 14 frames of 360x360, painted are 13 \(360x360\)"):
        measure_folder(tmp_path / "inputs", scenes)
    with pytest.raises(InputError, match="holds no painted scene"):
        measure_folder(tmp_path, scenes)
    with pytest.raises(InputError, match="there is no folder"):
        measure_folder(tmp_path / "inputs", scenes[:1], tmp_path)


def written(folder: Path, scenes: list[Scene], blur: float) -> Path:
    """What another program might have painted: the scenes, blurred, under names that only natural order sorts."""
    for scene in scenes:
        (folder / scene.name).mkdir(parents=True)
        for index, pixels in enumerate(scene.frames):
            picture = cv2.GaussianBlur(pixels, (0, 0), blur)[..., ::-1]
            cv2.imwrite(str(folder / scene.name / f"frame{index}.png"), picture)
    return folder


def test_another_program_is_compared_with_itself_without_stabilisation(tmp_path: Path):
    pytest.importorskip("matplotlib", reason="needs the [train] extra")
    scenes = small_scenes()
    plain, steady = written(tmp_path / "plain", scenes, 0.3), written(tmp_path / "steady", scenes, 1.5)
    rows = measure_folder(steady, scenes, plain, losses=lambda result, photo: (0.25, 0.5))
    first, second = summarise(measure_input(scenes) + rows)
    assert (first["painted"], second["painted"]) == (str(plain), str(steady))
    assert (first["sharpness"], second["style_loss"]) == (1, 0.5)
    assert second["sharpness"] < 0.75
    expected = second["synthetic_error_1"] / first["synthetic_error_1"] - 1
    assert second["change"]["synthetic_error_1"] == pytest.approx(expected)
    assert second["change"]["step"] < 0
    draw_plot(tmp_path / "plot.png", measure_folder(steady, scenes, plain))
    assert cv2.imread(str(tmp_path / "plot.png")).shape[2] == 3
    alone = measure_folder(steady, scenes)
    assert "change" not in summarise(alone)[0]
    with pytest.raises(InputError, match="add --plain, or --vgg"):
        draw_plot(tmp_path / "none.png", alone)
    with pytest.raises(InputError, match="needs a warping error"):
        draw_plot(tmp_path / "none.png", measure_folder(steady, scenes[1:], plain))


def test_flat_frames_have_no_sharpness_to_compare_with():
    scene = still_scene(10)
    black = [np.zeros_like(frame) for frame in scene.frames]
    assert measure(scene, black, "a", 0.5, plain=black).sharpness is None
    assert measure(scene, black, "a", 0.5, plain=scene.frames).sharpness == 0


def test_nothing_seen_twice_leaves_no_number(tmp_path: Path):
    """Not even NaN, which is no JSON."""
    scene = synthetic_scene(14, height=72, width=128)
    for (first, second), motion in scene.motions.items():
        motion.valid[:] &= second - first != 10
    row = measure(scene, scene.frames, "a", 0.5)
    assert set(row.errors) == {1, 5}
    write_report(tmp_path / "report.json", [row], {})
    assert json.loads((tmp_path / "report.json").read_text())["rows"][0]["errors"].keys() == {"1", "5"}


def test_frames_of_two_shots_are_not_compared(tmp_path: Path):
    paths = [tmp_path / f"{index:02}.png" for index in range(12)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), texture(60, 90, seed=index // 8))
    pairs = clip_scene(tmp_path, 12).motions.keys()
    assert (7, 8) not in pairs
    assert (8, 9) in pairs
    for path in paths[1:]:
        path.unlink()
    with pytest.raises(InputError, match="has one frame; expected a clip"):
        clip_scene(tmp_path, 12)


def test_drift_does_not_average_out():
    rows = [Row("a", 0.5, "still", "still", {}, drift=2.0), Row("b", 0.5, "still", "still", {}, drift=-3.0)]
    assert summarise(rows)[0]["drift"] == 3


class DarkeningEngine(BoilingEngine):
    """Gets darker by half a level a frame."""

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        painted = super().stylize(frame, mix).pixels
        return frame.with_pixels((painted * np.float32(1 - self.calls / 300)).astype(np.uint8))


def test_what_is_held_for_long_neither_darkens_nor_smears():
    """The stabiliser with an engine that boils, and the ruler with one that drifts."""
    held = measure_hold(BoilingEngine(noise=6), "a", 1, 100, flow="fast")
    assert abs(held.drift) < 0.5
    assert 0.8 < held.sharpness <= 1
    drifting = measure_hold(DarkeningEngine(noise=0), "a", 0.5, 40, flow="fast")
    assert drifting.drift < -5
    summary = summarise([held, drifting])
    assert [s["hold_drift"] for s in summary] == [abs(held.drift), -drifting.drift]
    assert "drift" not in summary[0]


def test_losses_are_passed_on():
    scene = still_scene(10)
    row = measure(scene, scene.frames, "a", 0.5, losses=lambda result, photo: (0.25, 0.5))
    assert (row.content, row.style_loss) == (0.25, 0.5)


def test_sintel_excerpts_and_clips(data: Path):
    scenes = sintel_scenes(data / "sintel")
    assert len(scenes) == 5
    errors = [row.errors[1] for row in measure_input(scenes)]
    assert 0.02 < np.mean(errors) < 0.045
    clip = clip_scene(data / "video" / "nasa_streams.mp4", 12)
    assert clip.frames[0].shape == (270, 480, 3)
    assert measure_input([clip])[0].errors[1] < 0.05


def test_a_folder_that_is_no_sintel(tmp_path: Path):
    with pytest.raises(InputError, match="there are no excerpts"):
        sintel_scenes(tmp_path / "missing")
    (tmp_path / "alley").mkdir()
    with pytest.raises(InputError, match="alley is no excerpt of Sintel"):
        sintel_scenes(tmp_path)


def excerpt(folder: Path, frames: int = 3, height: int = 24) -> tuple[Path, dict[str, np.ndarray]]:
    """An excerpt of Sintel in which nothing moves: where its flow goes, and what that holds."""
    folder.mkdir(parents=True)
    for index in range(1, frames + 1):
        cv2.imwrite(str(folder / f"frame_{index:04}.png"), texture(height, 32))
    return folder / "flow_0002.npz", {"flow": np.zeros((24, 32, 2), np.float16), "valid": np.ones((24, 32), bool)}


def test_a_sound_excerpt_of_sintel(tmp_path: Path):
    path, values = excerpt(tmp_path / "still")
    np.savez(path, **values)
    (scene,) = sintel_scenes(tmp_path)
    assert measure_input([scene])[0].errors == {1: 0}


@pytest.mark.parametrize("length", [0, 5, 300])
def test_a_damaged_flow_is_named(tmp_path: Path, length: int):
    path, values = excerpt(tmp_path / "still")
    np.savez_compressed(path, **values)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="still is no excerpt of Sintel"):
        sintel_scenes(tmp_path)


@pytest.mark.parametrize(
    ("made", "changed", "complaint"),
    [
        ({"frames": 2}, {}, "leads to a frame that is not there"),
        ({"height": 30}, {}, "expected one size"),
        ({}, {"flow": np.zeros((24, 32), np.float16)}, "expected one size"),
        ({}, {"flow": np.full((24, 32, 2), np.nan, np.float16)}, "is no number"),
    ],
)
def test_a_flow_that_does_not_fit_is_refused(tmp_path: Path, made, changed, complaint: str):
    path, values = excerpt(tmp_path / "still", **made)
    np.savez(path, **values | changed)
    with pytest.raises(InputError, match=complaint):
        sintel_scenes(tmp_path)


def test_what_there_is_not_is_said_before_anything_is_painted():
    engine = BoilingEngine()
    for styles, knob in ((["a", "c"], [0.5]), (["a"], [0.5, 1.5])):
        with pytest.raises(InputError, match=r"unknown style 'c'|steady is 1.5"):
            next(measure_engine(engine, small_scenes(), styles, knob, flow="fast"))
    assert engine.calls == 0


def test_a_style_without_a_painting_is_no_missing_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch", reason="needs the [train] extra")
    from videonst.bench import losses

    monkeypatch.setattr(losses, "Vgg19", lambda weights: None)
    with pytest.raises(InputError, match=r"no painting of a in .*; expected a.jpg"):
        losses.perceptual_losses(tmp_path, tmp_path)("a")


@pytest.mark.timeout(300)  # the first to ask for the small model waits for its export
def test_reports_that_cannot_be_written_are_known_at_once(small_model: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    for option, name in (("--json", "report.json"), ("--plot", "plot.png"), ("--plot", "plot.txt")):
        target = tmp_path / name if name.endswith("txt") else tmp_path / "file" / name
        arguments = ["--model", str(small_model), "--device", "cpu", "--style", "a", "--frames", "12"]
        result = CliRunner().invoke(app, ["bench", "stability", *arguments, option, str(target)])
        assert isinstance(result.exception, InputError), result.output
        assert "at 0" not in result.output


@pytest.mark.timeout(300)  # the first to ask for the small model waits for its export
def test_the_command(small_model: Path, tmp_path: Path):
    pytest.importorskip("matplotlib", reason="needs the [train] extra")
    arguments = [
        "--model",
        str(small_model),
        "--device",
        "cpu",
        "--style",
        "a",
        "--steady",
        "0.75",
        "--frames",
        "12",
        "--hold",
        "12",
    ]
    files = ["--json", str(tmp_path / "report.json"), "--plot", str(tmp_path / "plot.png")]
    result = CliRunner().invoke(app, ["bench", "stability", *arguments, *files])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert [s["steady"] for s in report["summary"]] == [0, 0.75]
    assert {row["style"] for row in report["rows"]} == {"input", "a"}
    assert [row["steady"] for row in report["rows"] if row["kind"] == "hold"] == [0.75]
    assert report["summary"][1]["change"]["step"] < -0.5
    assert cv2.imread(str(tmp_path / "plot.png")).shape[2] == 3
    result = CliRunner().invoke(app, ["bench", "stability", "--inputs", str(tmp_path / "inputs"), "--frames", "12"])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "inputs" / "synthetic").glob("*.png"))) == 12
    again = ["--painted", str(tmp_path / "inputs"), "--plain", str(tmp_path / "inputs"), "--frames", "12"]
    result = CliRunner().invoke(app, ["bench", "stability", *again], env={"COLUMNS": "20"})
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "inputs") in result.output
    assert "…" not in result.output
    draw_plot(tmp_path / "again.png", list(measure_engine(BoilingEngine(), small_scenes()[:1], ["a"], [0.5])))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--vgg", "x.safetensors"], "need both --vgg and --paintings"),
        (["--plain", "x"], "give both"),
        (["--painted", "x", "--steady", "0.5", "--flow", "fast"], "--flow and --steady: for an engine"),
        (["--painted", "x", "--hold", "50"], "painted already"),
        (["--painted", "x", "--style", "a"], "--style names the one painting"),
        (["--painted", "x", "--vgg", "x", "--paintings", "x"], "--style names the one painting"),
        (["--inputs", "x", "--plot", "x.png"], "in a run of its own"),
        (["--painted", "x", "--plot", "x.png"], "add --plain"),
        (["--painted", "missing", "--frames", "12"], "missing holds no painted scene"),
    ],
)
def test_options_that_would_do_nothing_are_refused(arguments: list[str], complaint: str):
    result = CliRunner().invoke(app, ["bench", "stability", *arguments])
    assert isinstance(result.exception, InputError)
    assert complaint in str(result.exception)
