"""`videonst convert --engine optimise`: options, what they write, what is refused."""

import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs the [train] extra")

from optimising import SmallFeatures, engine, picture, write_painting, written  # noqa: E402

from videonst.cli import app, console, optimise  # noqa: E402
from videonst.errors import VideoNSTError  # noqa: E402
from videonst.frame import Frame  # noqa: E402
from videonst.optimise import PRESETS, painter, watch  # noqa: E402
from videonst.sources import open_source  # noqa: E402
from videonst.styles import StyleMix  # noqa: E402


@pytest.fixture
def painting(tmp_path):
    return write_painting(tmp_path / "painting.png")


@pytest.fixture
def run(monkeypatch, tmp_path):
    import videonst.perceptual

    monkeypatch.delenv("VIDEONST_DATA", raising=False)
    monkeypatch.setattr(videonst.perceptual, "open_features", lambda name, vgg: SmallFeatures())
    written(tmp_path / "photo.png", picture())

    def invoke(*arguments, target="out.png"):
        paths = [str(tmp_path / "photo.png"), str(tmp_path / target)]
        return CliRunner().invoke(app, ["convert", *paths, *map(str, arguments)], catch_exceptions=True)

    return invoke


def test_the_command_line_paints_a_picture(run, painting, tmp_path):
    result = run(
        "--engine", "optimise", "--style", painting, "--preset", "draft", "--steps", 8, "--start-from", "content",
        "--preview", tmp_path / "now.png", "--timelapse", tmp_path / "steps.mp4", "--plot", tmp_path / "losses.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "optimise draft on small" in result.stderr
    out = cv2.imread(str(tmp_path / "out.png"))
    assert out.shape == (64, 80, 3)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "now.png")), out)
    assert cv2.imread(str(tmp_path / "losses.png")).shape[0] > 300
    with open_source(tmp_path / "steps.mp4") as source:
        frames = [frame.pixels for frame in source]
    assert len(frames) == 8 + 50
    assert np.abs(frames[-1].astype(int) - out[..., ::-1]).mean() < 12


@pytest.mark.parametrize(("given", "steps"), [((), 80), (("--steps", 5), 5)])
def test_the_command_line_takes_the_steps_of_the_network(run, painting, monkeypatch, given, steps):
    """And as many as are asked for, where they are."""
    small = SmallFeatures()
    small.name = "compact"
    monkeypatch.setattr("videonst.perceptual.open_features", lambda name, vgg: small)
    original, taken = painter.Painter._objective, []
    monkeypatch.setattr(
        painter.Painter,
        "_objective",
        lambda self, *given: lambda image, it=original(self, *given): taken.append(0) or it(image),
    )
    result = run("--engine", "optimise", "--style", painting, "--start-from", "content", *given)
    assert result.exit_code == 0, result.output
    assert steps <= len(taken) <= steps + 2


def test_ctrl_c_on_the_command_line_saves_the_picture(run, painting, tmp_path, monkeypatch):
    original = painter.Painter._objective

    def slow(self, *arguments):
        objective, calls = original(self, *arguments), iter(range(100))

        def evaluate(image):
            if next(calls) == 3:
                raise KeyboardInterrupt
            return objective(image)

        return evaluate

    monkeypatch.setattr(painter.Painter, "_objective", slow)
    options = ["--engine", "optimise", "--style", painting, "--start-from", "content"]
    result = run(*options, "--plot", tmp_path / "losses.png")
    assert result.exit_code == 130
    assert "the best so far is saved" in result.stderr
    assert cv2.imread(str(tmp_path / "out.png")).shape == (64, 80, 3)
    assert cv2.imread(str(tmp_path / "losses.png")) is not None
    written(tmp_path / "a photo.png", picture())
    # As the handler of a process leaves it.
    monkeypatch.setattr(console, "_interrupted", SimpleNamespace(is_set=lambda: True))
    many = CliRunner().invoke(app, ["convert", f"{tmp_path}/*photo.png", f"{tmp_path}/many", *map(str, options)])
    assert many.exit_code == 130
    assert f"{tmp_path}/many/a photo.png: stopped early" in many.stderr
    assert cv2.imread(str(tmp_path / "many" / "a photo.png")).shape == (64, 80, 3)
    assert not (tmp_path / "many" / "photo.png").exists()


@pytest.mark.parametrize("option", ["--preview", "--plot"])
@pytest.mark.parametrize("used", ["photo.png", "painting.png", "mask.png", "out.png", "now.png"])
def test_what_is_read_or_written_already_is_not_written_over(run, painting, tmp_path, option, used):
    written(tmp_path / "mask.png", np.repeat(np.uint8([0, 255]), 48)[:, None].repeat(96, 1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    masks = ["--content-mask", tmp_path / "mask.png", "--style-mask", tmp_path / "mask.png"]
    others = ["--plot" if option == "--preview" else "--preview", tmp_path / "now.png"]
    result = run(
        "--engine", "optimise", "--style", painting, "--overwrite", *masks, *others,
        option, tmp_path / "." / used,
    )  # fmt: skip
    assert "name another file" in str(result.exception)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_preview_that_cannot_be_written_does_not_end_the_work(painting, tmp_path, caplog):
    folder = tmp_path / "shown"
    folder.mkdir()
    recorder = watch.Recorder(folder / "now.png")
    folder.rmdir()
    optimiser = engine(painting, watch=recorder)
    assert optimiser.stylize(Frame(picture()), StyleMix.parse(str(painting))).pixels.shape == (64, 80, 3)
    assert caplog.text.count("no more previews") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--style", "udnie", "--steps", "5"], "--steps: only with --engine optimise"),
        (["--style", "a.jpg"], "--engine optimise"),
        (["--engine", "optimise"], "no painting"),
        (["--engine", "optimise", "--style", "udnie"], "--paintings"),
        (["--engine", "optimise", "--style", "PAINTING", "--steady", "0.5"], "--steady"),
        (["--engine", "optimise", "--style", "PAINTING", "--preset", "slow"], "-e preset=slow"),
        (["--engine", "optimise", "--style", "PAINTING", "--steps", "0"], "1 or more"),
        (["--engine", "optimise", "--style", "PAINTING", "--style-weight", "-1"], "--style-weight"),
        (["--engine", "optimise", "--style", "PAINTING", "--content-mask", "a.png"], "--style-mask"),
        (["--engine", "optimise", "--style", "PAINTING", "--memory", "1MB"], "needs about"),
        (["--engine", "optimise", "--style", "PAINTING", "--timelapse", "a.txt"], "timelapse"),
        (["--engine", "optimise", "--style", "PAINTING", "--plot", "a.txt"], "cannot write a plot to a.txt"),
        (["--engine", "optimise", "--style", "PAINTING", "--preview", "none/a.png"], "no directory none"),
        (["--engine", "optimise", "--style", "PAINTING", "--start-from", "luck"], "unknown start"),
        (["--engine", "optimise", "--style", "PAINTING", "--stroke-scale", "9"], "stroke scale"),
        (["--engine", "optimise", "--style", "https://a.example/monet.jpg"], "fetch https://a.example/monet.jpg first"),
        (
            ["--engine", "optimise", "--style", "PAINTING", "--device", "tensorrt"],
            "unknown device 'tensorrt'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(run, painting, tmp_path, arguments, said):
    result = run(*(painting if a == "PAINTING" else a for a in arguments))
    message = str(result.exception) if isinstance(result.exception, VideoNSTError) else result.stderr
    assert said in message, result.output
    assert not (tmp_path / "out.png").exists()


def test_without_torch_it_says_what_to_install(run, painting, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("videonst.optimise", "videonst.training"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("--engine", "optimise", "--style", painting)
    assert "pip install 'videonst[train]'" in str(result.exception)


def test_options_are_documented():
    page = (Path(__file__).resolve().parent.parent / "docs" / "quality.md").read_text()
    parameters = typer.main.get_command(app).commands["convert"].params
    options = [p.opts[0] for p in parameters if getattr(p, "rich_help_panel", None) == optimise.PANEL]
    assert len(options) == 14
    for option in (*options, *PRESETS):
        assert f"`{option}" in page
