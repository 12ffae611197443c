"""`videonst live` called as a function: what it refuses, what it opens, what it says."""

import re
from pathlib import Path

import pytest
from clips import make_clip, video_timing
from typer.testing import CliRunner

from videonst.cli import app
from videonst.errors import InputError
from videonst.sources import camera as camera_module
from videonst.sources.camera import Camera


def run(*args: object) -> str:
    """What it printed; raises what it raised."""
    result = CliRunner().invoke(app, ["live", *map(str, args)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4")


def test_records_without_a_window(clip: Path, small_model: Path, tmp_path: Path):
    target = tmp_path / "out.mp4"
    said = run("--no-window", "--source", clip, "--loop", "--record", target, "--seconds", 0.5, "-m", small_model)
    frames = len(video_timing(target))
    assert "source: 64x48 at 25 fps" in said
    assert f"recorded {frames} frames in {target}" in said
    assert int(re.search(r"(\d+) frames; small at 48 lines", said).group(1)) >= frames > 0


def test_pins(clip: Path, small_model: Path, tmp_path: Path):
    target = tmp_path / "out.mp4"
    said = run(
        *("--no-window", "--source", clip, "--record", target, "-m", small_model, "--lines", 64),
        *("--style", "a:0.5,c:0.5", "--steady", 0, "--strength", 0.5, "--keep-colour", "--mirror", "--device", "cpu"),
    )
    assert "frames; small at 48 lines" in said


def test_lists_cameras(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(camera_module, "list_cameras", lambda: [Camera(0, "Built-in"), Camera(2, "")])
    assert run("--list-cameras").splitlines() == ["0  Built-in", "2"]
    monkeypatch.setattr(camera_module, "list_cameras", list)
    with pytest.raises(InputError, match="no camera was found; plug one in, or use --source"):
        run("--list-cameras")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--no-window"], "nothing would be shown or kept"),
        (["--source", "absent.mp4"], "absent.mp4 does not exist"),
        (["--loop"], "--loop repeats a recording"),
        (["--camera", "front"], "cannot read 'front' as a camera"),
        (["--size", "big"], "cannot read 'big' as a size; expected WIDTHxHEIGHT"),
        (["--fourcc", "MPEG4"], "cannot read 'MPEG4' as a pixel format"),
        (["--lines", "many"], "cannot read 'many' as a working size"),
        (["--lines", "12"], "expected auto or 64 to 2160 lines"),
        (["--style", "zz"], "unknown style 'zz'"),
        (["--model", "fats"], "unknown model 'fats'"),
        (["--steady", "2"], "steadiness is 2; expected 0 to 1"),
        (["--folder", "absent"], "there is no directory absent; create it first"),
        (["--backend", "v5l"], "unknown camera backend 'v5l'"),
        (["--source", "CLIP", "--out", "ftp://host"], "cannot send to 'ftp://host'"),
        (["--source", "CLIP", "--record", "absent/x.mp4"], "there is no directory absent"),
    ],
)
def test_what_is_refused(args: list[str], message: str, clip: Path, small_model: Path, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in args else ["--model", str(small_model)]
    elsewhere = [] if args == ["--no-window"] else ["--no-window", "--record", "out.mp4"]
    elsewhere = elsewhere if "--record" not in args else ["--no-window"]
    with pytest.raises(InputError) as caught:
        run(*elsewhere, *model, *(str(clip) if arg == "CLIP" else arg for arg in args))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4"}


def test_without_a_screen_it_says_what_else_there_is(clip: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.system", lambda: "Linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Exception, match=r"there is no screen to open a window on .* use --no-window"):
        run("--source", clip, "-m", small_model)
