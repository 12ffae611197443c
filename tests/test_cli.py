"""The command line as a user runs it: a process of its own, its exit code and what it prints."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from videonst import __version__
from videonst.demo import CLIP, PORTRAIT
from videonst.models import list_models


def run(*args: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "videonst", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def test_help_and_version():
    assert "convert" in run("--help").stdout
    assert run("--version").stdout.strip() == f"videonst {__version__}"
    run(code=2)
    run("nonsense", code=2)


@pytest.mark.parametrize(
    ("args", "wrong"),
    [
        (("absent.mp4", "out.mp4", "-s", "a"), "absent.mp4 does not exist"),
        ((CLIP, "out.mp4", "-s", "zz"), "unknown style 'zz'"),
        ((CLIP, "out.xyz", "-s", "a"), "out.xyz"),
        ((CLIP, "out.mp4", "-s", "a", "--strength", "7"), "strength 7 is out of range"),
        ((CLIP, "out.mp4", "-s", "a", "--model", "fats"), "unknown model 'fats'; did you mean fast"),
        ((CLIP, "out.mp4", "-s", "a", "--device", "abacus"), "abacus"),
        ((CLIP, "out.mp4", "-s", "a", "--crf", "99"), "crf 99"),
        ((CLIP, "out.png", "-s", "a"), "out.png"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, small_model: Path, args, wrong: str, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = () if "--model" in args else ("--model", small_model)
    done = run("convert", *args, *model, code=2)
    assert wrong in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback():
    command = [sys.executable, "-m", "videonst", "--debug", "convert", "absent.mp4", "o.mp4", "-s", "a"]
    assert "Traceback" in subprocess.run(command, capture_output=True, text=True).stderr


def test_convert_refuses_to_overwrite(tmp_path: Path, small_model: Path):
    target = tmp_path / "out.png"
    target.write_bytes(b"precious")
    done = run("convert", PORTRAIT, target, "-s", "a", "-m", small_model, code=2)
    assert "--overwrite" in done.stderr
    assert target.read_bytes() == b"precious"
    done = run("convert", PORTRAIT, target, "-s", "a", "-m", small_model, "--overwrite")
    assert "1 frames" in done.stderr
    assert "on cpu" in done.stderr  # `--device auto` says what it took
    assert cv2.imread(str(target)).shape == (360, 360, 3)


def test_interrupt_leaves_nothing_and_exits_130(tmp_path: Path, small_model: Path):
    command = [sys.executable, "-m", "videonst", "convert", CLIP, tmp_path / "out.mp4", "-s", "a", "-m", small_model]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:  # the part file shows that work has begun
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_styles_and_models_as_json(small_model: Path):
    styles = json.loads(run("styles", "--model", small_model, "--json").stdout)
    assert [s["name"] for s in styles] == ["a", "b", "c"]
    assert styles[0]["artist"] == "Hokusai"
    assert {"name", "tier", "precision", "path"} <= set(json.loads(run("models", "--json").stdout)[0])


def test_contact_sheet(tmp_path: Path, small_model: Path):
    run("styles", PORTRAIT, "--sheet", tmp_path / "sheet.png", "--model", small_model)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * (360 + 26), 2 * 360, 3)  # photograph and three styles, each with its label
    photo = cv2.imread(str(PORTRAIT))
    np.testing.assert_array_equal(sheet[:360, :360], photo)
    assert "needs both" in run("styles", PORTRAIT, code=2).stderr


def test_doctor_says_what_works():
    report = json.loads(run("doctor", "--json").stdout)
    assert {"device": "cpu", "works": True, "reason": "", "install": ""} in report["devices"]
    for device in report["devices"]:
        assert device["works"] or device["reason"]
    assert report["problems"] == []


def test_demo_paints_the_sample_clip(tmp_path: Path):
    """The README's first command: shipped model, shipped clip."""
    done = run("demo", tmp_path / "demo.mp4", "--model", "tiny")
    assert str(tmp_path / "demo.mp4") in done.stdout
    with av.open(str(tmp_path / "demo.mp4")) as result, av.open(str(CLIP)) as source:
        assert len(result.streams.audio) == 1
        assert [f.pts for f in result.decode(video=0)] == [f.pts for f in source.decode(video=0)]


def test_shipped_models_are_all_there():
    names = {m.name for m in list_models()}
    assert {"fast", "tiny", "full", "fast.fp16", "tiny.fp16", "full.fp16"} <= names
    for model in list_models():
        assert len(model.metadata.styles) == 17
        assert all(s.thumbnail and s.licence == "public domain" for s in model.metadata.styles)


def test_train_and_export(tmp_path: Path, random_vgg: Path):
    """Train a toy, convert with what came out, export its checkpoint again."""
    rng = np.random.default_rng(0)
    for folder in ("styles", "content"):
        (tmp_path / folder).mkdir()
        for name in ("one", "two"):
            smooth = cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (80, 80)).astype(np.float32)
            grainy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255)  # 8-bit ranges are set on it
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), grainy.astype(np.uint8))
    (tmp_path / "toy.toml").write_text(
        'tier = "tiny"\nsteps = 2\nbatch = 1\npainting_size = 64\ncontent_layer = "relu2_1"\n'
        'style_layers = ["relu1_1"]\n[[stages]]\nuntil = 1\ncrop = 64\n'
    )
    args = ["--styles", tmp_path / "styles", "--content", tmp_path / "content", "--recipe", tmp_path / "toy.toml"]
    done = run("train", *args, "--vgg", random_vgg, "--out", tmp_path / "toy.onnx", "--data-note", "noise")
    assert "step 2/2" in done.stderr
    assert done.stdout.split() == [str(tmp_path / f"toy{p}.onnx") for p in ("", ".fp16", ".int8")]
    run("convert", PORTRAIT, tmp_path / "out.png", "-s", "one:1,two:1", "-m", tmp_path / "toy.onnx")
    # A model file is written again with the same weights, and where photographs are given, in 8 bits.
    done = run("export", tmp_path / "toy.onnx", tmp_path / "again.onnx", "--calibrate", tmp_path / "content")
    assert done.stdout.split() == [str(tmp_path / f"again{p}.onnx") for p in ("", ".fp16", ".int8")]
    run("convert", PORTRAIT, tmp_path / "out2.png", "-s", "one:1,two:1", "-m", tmp_path / "again.onnx")
    run("export", tmp_path / "toy.training" / "checkpoint.pt", tmp_path / "again.onnx")
    assert not (tmp_path / "again.int8.onnx").exists()  # it was of the weights before
    run("convert", PORTRAIT, tmp_path / "out3.png", "-s", "one:1,two:1", "-m", tmp_path / "again.onnx")
    first, second, third = (cv2.imread(str(tmp_path / f"out{n}.png")) for n in ("", 2, 3))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)
    assert "is in int8" in run("export", tmp_path / "toy.int8.onnx", tmp_path / "x.onnx", code=2).stderr
    assert "absent.pt" in run("export", "absent.pt", tmp_path / "x.onnx", code=2).stderr
    assert "do not exist" in run("train", *args, "--vgg", "no.pth", "--out", tmp_path / "x.onnx", code=2).stderr


@pytest.mark.skipif(os.name == "nt", reason="no POSIX permissions")
def test_unwritable_target(tmp_path: Path, small_model: Path):
    if os.geteuid() == 0:
        target, wrong = tmp_path / "absent" / "out.mp4", "absent"
    else:
        tmp_path.chmod(0o500)
        target, wrong = tmp_path / "out.mp4", str(tmp_path)
    assert wrong in run("convert", CLIP, target, "-s", "a", "-m", small_model, code=2).stderr
