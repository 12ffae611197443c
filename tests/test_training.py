import json
import logging
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [train] extra")

from videonst.errors import InputError, VideoNSTError  # noqa: E402
from videonst.network import StyleNetwork  # noqa: E402
from videonst.perceptual import Vgg19  # noqa: E402
from videonst.training import Trainer, list_paintings, load_recipe, make_recipe  # noqa: E402
from videonst.training.data import Photographs, balanced  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TOY = {
    "tier": "tiny", "steps": 6, "batch": 2, "painting_size": 72, "warmup": 2, "content_layer": "relu3_1",
    "style_layers": ["relu1_1", "relu2_1"],
    "stages": [{"until": 0.5, "crop": 64}, {"until": 1, "crop": 64, "scales": [1, 2]}],
}  # fmt: skip


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two paintings, red stripes and blue dots, and six photographs of noise at several scales."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    stripes = np.zeros((80, 90, 3), np.uint8)
    stripes[:, ::6, 2] = stripes[:, 1::6, 2] = 230
    dots = np.full((80, 80, 3), (200, 60, 20), np.uint8)
    dots[::5, ::5] = 255
    write(folder / "styles" / "stripes.png", stripes)
    write(folder / "styles" / "dots.png", dots)
    for i in range(6):
        small = rng.integers(0, 256, (4 + 3 * i, 6 + 3 * i, 3), dtype=np.uint8)
        write(folder / "content" / f"{i}.png", cv2.resize(small, (100, 80), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="module")
def vgg(random_vgg: Path) -> Vgg19:
    return Vgg19(random_vgg)


def trainer(folders: Path, run: Path, vgg: Vgg19, **changes: object) -> Trainer:
    return Trainer(make_recipe(TOY | changes), list_paintings(folders / "styles"), folders / "content", run, vgg)


def losses(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_training_lowers_the_loss_of_both_styles(folders: Path, tmp_path: Path, vgg: Vgg19):
    trainer(folders, tmp_path, vgg, steps=60, learning_rate=0.01, batch=3).run()
    log = losses(tmp_path)

    def style(slot: int, entries: list[dict]) -> float:
        return float(np.mean([v for e in entries for s, v in zip(e["slots"], e["style"], strict=True) if s == slot]))

    for slot in (1, 2):
        assert style(slot, log[-10:]) < 0.85 * style(slot, log[:10]), slot
    assert {"checkpoint.pt", "log.jsonl", "samples.png", "curves.png"} <= {p.name for p in tmp_path.iterdir()}
    # Two photographs x (photo + 2 styles), 192 pixels each, six in a row.
    assert cv2.imread(str(tmp_path / "samples.png")).shape == (192, 6 * 192, 3)


KILLED_RUN = """
    import sys
    from pathlib import Path
    from videonst.perceptual import Vgg19
    from videonst.training import Trainer, list_paintings, make_recipe
    folders, run, vgg, recipe = sys.argv[1:]
    import json, torch
    torch.set_num_threads(1)
    t = Trainer(make_recipe(json.loads(recipe)), list_paintings(Path(folders, "styles")), Path(folders, "content"),
                Path(run), Vgg19(Path(vgg)))
    t.run(lambda p: print(p.step, flush=True), every_seconds=0)
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums are split over threads: the same weights need the same number of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_killed_run_resumes_to_the_same_weights(folders: Path, tmp_path: Path, random_vgg: Path, vgg: Vgg19):
    """kill -9 in mid-run, start again: bit for bit the weights of a run that was never killed."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    trainer(folders, whole, vgg).run()
    args = [str(folders), str(killed), str(random_vgg), json.dumps(TOY)]
    command = [sys.executable, "-c", textwrap.dedent(KILLED_RUN), *args]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(90, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == "3":
                    break
            process.send_signal(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
        finally:
            watchdog.cancel()
    resumed = trainer(folders, killed, vgg)
    assert 1 <= resumed.step < 6  # it goes on, rather than starting over
    resumed.run()
    a, b = (torch.load(run / "checkpoint.pt", weights_only=True)["network"] for run in (whole, killed))
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    strip = [[{k: v for k, v in e.items() if k != "seconds"} for e in losses(run)] for run in (whole, killed)]
    assert strip[0] == strip[1]


def test_warm_start_takes_over_the_weights(folders: Path, tmp_path: Path, vgg: Vgg19):
    def start(name: str, network: StyleNetwork, tier: str = "tiny") -> StyleNetwork:
        recipe = make_recipe(TOY | {"tier": tier})
        styles = list_paintings(folders / "styles")
        return Trainer(recipe, styles, folders / "content", tmp_path / name, vgg, start=network).network

    torch.manual_seed(1)
    same, fewer = StyleNetwork("tiny", 2), StyleNetwork("tiny", 5)
    for network in (same, fewer):
        torch.nn.init.normal_(network.bank)
    for name, value in start("a", same).state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    other = start("b", fewer)
    assert torch.equal(other.bank[0], fewer.bank[0])
    torch.testing.assert_close(other.bank[2], fewer.bank[1:].mean(0))
    assert start("c", StyleNetwork("fast", 2), "full").tier == "full"
    with pytest.raises(InputError, match="tier tiny cannot grow into tier fast"):
        start("d", same, "fast")


def test_checkpoint_of_another_recipe_is_refused(folders: Path, tmp_path: Path, vgg: Vgg19):
    trainer(folders, tmp_path, vgg, steps=1).run()
    with pytest.raises(InputError, match="belongs to another recipe"):
        trainer(folders, tmp_path, vgg, steps=2)


def test_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(folders: Path, tmp_path: Path, vgg: Vgg19):
    run = trainer(folders, tmp_path, vgg, steps=4)
    before: list[bytes] = []

    def poison(progress: object) -> None:
        before.append(run.checkpoint.read_bytes())
        with torch.no_grad():
            run.network.stem.weight.fill_(float("nan"))

    with pytest.raises(VideoNSTError, match="the loss is nan at step 1"):
        run.run(poison, every_seconds=0)
    assert run.checkpoint.read_bytes() == before[0]


def test_gradient_that_overflows_is_skipped(folders: Path, tmp_path: Path, vgg: Vgg19):
    run = trainer(folders, tmp_path, vgg, steps=2)
    before = {k: v.clone() for k, v in run.network.state_dict().items()}
    handle = run.network.stem.weight.register_hook(lambda gradient: gradient * float("inf"))
    states: list[bool] = []

    def after_step(progress: object) -> None:
        states.append(all(torch.equal(v, before[k]) for k, v in run.network.state_dict().items()))
        handle.remove()

    run.run(after_step)
    assert states == [True, False]  # untouched by the first step, moved by the second
    assert [entry["gradient_norm"] is None for entry in losses(tmp_path)] == [True, False]


def test_learning_rate_rises_then_falls_on_a_cosine(folders: Path, tmp_path: Path, vgg: Vgg19):
    run = trainer(folders, tmp_path, vgg, steps=100, warmup=10, learning_rate=1.0, final=0.1)
    assert [run.rate(0), run.rate(9), run.rate(10)] == [0.1, 1.0, 1.0]
    assert run.rate(55) == pytest.approx(0.55)
    assert run.rate(99) == pytest.approx(0.1, abs=0.001)


def test_every_style_comes_equally_often():
    slots = [balanced(i, 18, seed=3) for i in range(180)]
    assert all(sorted(slots[i : i + 18]) == list(range(18)) for i in range(0, 180, 18))
    assert slots[:18] != slots[18:36]


def test_unreadable_photographs_are_named_skipped_and_counted(tmp_path: Path, folders: Path, caplog):
    for p in (folders / "content").iterdir():
        (tmp_path / p.name).write_bytes(p.read_bytes())
    (tmp_path / "broken.jpg").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    photos = Photographs(tmp_path, seed=0)
    with caplog.at_level(logging.WARNING):
        batch = photos.batch(0, 16, 64, (1.0, 1.2))
    assert batch.shape == (16, 3, 64, 64)
    assert {p.name for p in photos.unreadable} == {"broken.jpg", "empty.png"}
    assert sum("skipping" in m for m in caplog.messages) == 2


def test_bad_folders_and_paintings_are_one_line(tmp_path: Path, folders: Path, vgg: Vgg19):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="no pictures in"):
        Photographs(tmp_path / "nothing", 0)
    with pytest.raises(InputError, match="is not a folder"):
        list_paintings(tmp_path / "absent")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_text("no")
    with pytest.raises(InputError, match="none of the 1 pictures can be read"):
        Photographs(tmp_path / "bad", 0).batch(0, 1, 64, (1, 1))
    with pytest.raises(InputError, match=r"x\.jpg is not a picture that can be read"):
        Trainer(make_recipe(TOY), list_paintings(tmp_path / "bad"), folders / "content", tmp_path / "r", vgg)
    write(tmp_path / "small" / "small.png", np.zeros((40, 50, 3), np.uint8))
    with pytest.raises(InputError, match=r"50x40; expected sides of 64"):
        Trainer(make_recipe(TOY), list_paintings(tmp_path / "small"), folders / "content", tmp_path / "r", vgg)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('tier = "huge"\nsteps = 1', "tier is 'huge'"),
        ('tier = "fast"\nsteps = 0', "at least 1"),
        ('tier = "fast"', "steps"),
        ('tier = "fast"\nsteps = 1\nspeed = 9', "speed"),
        ('tier = "fast"\nsteps = 1\nstyle_layers = ["relu9_9"]', "relu9_9"),
        ('tier = "fast"\nsteps = 1\n[[stages]]\nuntil = 0.5\ncrop = 64', "end with 1.0"),
        ('tier = "fast"\nsteps = 1\n[[stages]]\nuntil = 1\ncrop = 70', "multiple of 16"),
        ("tier = ", "not valid TOML"),
    ],
)
def test_bad_recipes_are_one_line(tmp_path: Path, text: str, wrong: str):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"^[^\n]+$") as error:
        load_recipe(path)
    assert wrong in str(error.value)


@pytest.mark.parametrize("name", ["fast", "tiny", "full", "fast-steady", "tiny-steady", "full-steady"])
def test_shipped_recipes_are_whole(name: str):
    """They name every hyper-parameter, so that a change of a default cannot change them."""
    import dataclasses
    import tomllib

    path = ROOT / "models" / "recipes" / f"{name}.toml"
    recipe = load_recipe(path)
    assert recipe.tier == name.removesuffix("-steady")
    assert all(stage.moves == name.endswith("-steady") for stage in recipe.stages)
    assert set(tomllib.loads(path.read_text())) == {f.name for f in dataclasses.fields(recipe)}


def test_full_disk_is_one_line_and_keeps_the_last_checkpoint(folders, tmp_path, vgg, monkeypatch):
    run = trainer(folders, tmp_path, vgg, steps=2)
    saves = iter([torch.save])

    def save(*args: object) -> None:
        next(saves, full)(*args)

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(VideoNSTError, match="No space left on device; free some space"):
        run.run(every_seconds=0)
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 1
    assert not list(tmp_path.glob("*.part"))
