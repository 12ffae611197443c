"""Many inputs: which files are meant, what becomes of each."""

import shutil
from pathlib import Path

import av
import cv2
import pytest
from clips import make_clip, smooth_picture

from videonst.api import load
from videonst.batch import convert_many, find_inputs, means_many, plan
from videonst.cli import app
from videonst.errors import InputError

pytestmark = pytest.mark.timeout(280)


@pytest.fixture
def folder(tmp_path):
    """Two clips, a picture, a torn clip, and what is none of these."""
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    clip = make_clip(tmp_path / "in" / "clip_2.mp4", pts=range(0, 120, 40))
    shutil.copy(clip, tmp_path / "in" / "clip_10.MP4")
    shutil.copy(clip, tmp_path / "in" / "deeper" / "other.mp4")
    shutil.copy(clip, tmp_path / "in" / ".hidden.mp4")
    cv2.imwrite(str(tmp_path / "in" / "photo.bmp"), smooth_picture(64, 48))
    (tmp_path / "in" / "torn.mkv").write_bytes(b"torn")
    (tmp_path / "in" / "notes.txt").write_text("no video")
    return tmp_path / "in"


def names(paths):
    return [path.name for path in paths]


def test_a_folder_stands_for_its_videos_and_pictures(folder):
    assert means_many(str(folder))
    assert names(find_inputs([str(folder)])) == ["clip_2.mp4", "clip_10.MP4", "photo.bmp", "torn.mkv"]


def test_a_folder_of_pictures_is_one_sequence(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), smooth_picture(64, 48))
    assert not means_many(str(tmp_path))


def test_wildcards(folder):
    assert means_many(f"{folder}/*.mp4")
    assert names(find_inputs([f"{folder}/clip*"])) == ["clip_2.mp4", "clip_10.MP4"]
    assert names(find_inputs([f"{folder}/**/*.mp4"])) == ["clip_2.mp4", "other.mp4"]
    odd = folder / "what[1].mp4"  # a file is a file, whatever its name looks like
    odd.write_bytes(b"")
    assert not means_many(str(odd))
    assert find_inputs([str(odd)]) == [odd]


def test_a_list_is_relative_to_itself(folder):
    (folder / "list.txt").write_text("\ufeff# comment\nclip_2.mp4\n\ndeeper/other.mp4\nclip_2.mp4\n", encoding="utf-8")
    assert means_many(f"@{folder}/list.txt")
    assert names(find_inputs([f"@{folder}/list.txt", str(folder / "photo.bmp")])) == [
        "clip_2.mp4", "other.mp4", "photo.bmp",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["rtsp://camera/[1]", "-", "clip.mp4", "frame_%05d.png"])
def test_what_is_one_input(text):
    assert not means_many(text)


@pytest.mark.parametrize("source", ["{}/*.avi", "@{}/absent.txt", "{}/deeper/empty"])
def test_what_stands_for_nothing(folder, source):
    (folder / "deeper" / "empty").mkdir()
    with pytest.raises(InputError, match=r"stands for no file|cannot read the list"):
        find_inputs([source.format(folder)])


def test_names_of_outputs(tmp_path):
    inputs = [Path("a/one.avi"), Path("b/two.bmp"), Path("b/three.webm")]
    assert names(job.target for job in plan(inputs, tmp_path)) == ["one.mp4", "two.png", "three.webm"]
    named = plan(inputs, tmp_path, "{parent}_{stem}_{number:03}.mkv")
    assert names(job.target for job in named) == ["a_one_001.mkv", "b_two_002.mkv", "b_three_003.mkv"]
    with pytest.raises(InputError, match=r"a/one.avi and b/one.mov would both become .*one.mp4"):
        plan([Path("a/one.avi"), Path("b/one.mov")], tmp_path, "{stem}.mp4")
    for wrong in ("{nonsense}", "{", "{0}", "{number:x^y}"):
        with pytest.raises(InputError, match="cannot read the name"):
            plan(inputs, tmp_path, wrong)
    with pytest.raises(InputError, match="names a file"):
        plan(inputs, tmp_path / "out.mp4")


def test_one_that_fails_does_not_stop_the_others(folder, small_model):
    model = load(small_model)
    jobs = plan(find_inputs([str(folder)]), folder.parent / "new" / "out")
    outcomes = list(convert_many(jobs, "a", model=model))
    assert [outcome.status for outcome in outcomes] == ["done", "done", "done", "failed"]
    assert "torn.mkv" in str(outcomes[3].error)
    assert [o.progress.frames_done for o in outcomes[:3]] == [3, 3, 1]
    assert sorted(names((folder.parent / "new" / "out").iterdir())) == ["clip_10.mp4", "clip_2.mp4", "photo.png"]
    again = convert_many(jobs, "a", model=model, skip_existing=True)
    assert [outcome.status for outcome in again] == ["skipped", "skipped", "skipped", "failed"]
    again = convert_many(jobs[:1], "a", model=model)
    assert "exists already" in str(next(again).error)


def test_the_command_line(folder, small_model, capfd):
    arguments = ["convert", str(folder), f"{folder.parent}/out", "-s", "a", "-m", str(small_model)]
    assert run(*arguments, "--name", "{number}.mkv") == 1
    errors = capfd.readouterr().err
    assert "2 of 4 failed" in errors
    assert errors.count("torn.mkv") >= 3  # when it happened, in the table, at the end
    assert "the input is a picture" in errors
    assert sorted(names((folder.parent / "out").iterdir())) == ["1.mkv", "2.mkv"]
    with av.open(str(folder.parent / "out" / "1.mkv")) as result:
        assert result.format.name == "matroska,webm"
    (folder / "torn.mkv").unlink()
    (folder / "photo.bmp").unlink()
    assert run(*arguments, "--name", "{number}.mkv", "--skip-existing") == 0
    assert "skipped" in capfd.readouterr().err
    files = [str(folder / "clip_2.mp4"), str(folder / "deeper" / "other.mp4")]
    assert run("convert", *files, f"{folder.parent}/two", "-s", "a", "-m", str(small_model)) == 0
    assert len(list((folder.parent / "two").iterdir())) == 2


def run(*arguments: str) -> int:
    """In this process; its exit code."""
    with pytest.raises(SystemExit) as stopped:
        app(list(arguments), prog_name="videonst")
    return stopped.value.code or 0
