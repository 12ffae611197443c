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
    draw_plot,
    measure,
    measure_engine,
    measure_folder,
    measure_input,
    summarise,
    write_inputs,
)
from videonst.cli import app
from videonst.errors import InputError
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
    (synthetic, still) = measure_folder(tmp_path / "inputs", scenes, tmp_path / "inputs")
    assert synthetic.errors == pytest.approx(measure_input(scenes)[0].errors)
    assert still.step == pytest.approx(measure_input(scenes)[1].step)
    assert synthetic.sharpness == 1
    (tmp_path / "inputs" / "still" / "0003.png").unlink()
    with pytest.raises(InputError, match="scene still has 14 frames of 360x360, painted are 13"):
        list(measure_folder(tmp_path / "inputs", scenes))


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


@pytest.mark.timeout(300)  # the first to ask for the small model waits for its export
def test_the_command(small_model: Path, tmp_path: Path):
    pytest.importorskip("matplotlib", reason="needs the [train] extra")
    arguments = ["--model", str(small_model), "--device", "cpu", "--style", "a", "--steady", "0.75", "--frames", "12"]
    files = ["--json", str(tmp_path / "report.json"), "--plot", str(tmp_path / "plot.png")]
    result = CliRunner().invoke(app, ["bench", "stability", *arguments, *files])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert [s["steady"] for s in report["summary"]] == [0, 0.75]
    assert {row["style"] for row in report["rows"]} == {"input", "a"}
    assert report["summary"][1]["change"]["step"] < -0.5
    assert cv2.imread(str(tmp_path / "plot.png")).shape[2] == 3
    result = CliRunner().invoke(app, ["bench", "stability", "--inputs", str(tmp_path / "inputs"), "--frames", "12"])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "inputs" / "synthetic").glob("*.png"))) == 12
    draw_plot(tmp_path / "again.png", list(measure_engine(BoilingEngine(), small_scenes()[:1], ["a"], [0.5])))
    result = CliRunner().invoke(app, ["bench", "stability", "--vgg", "x.safetensors"])
    assert isinstance(result.exception, InputError)
