"""Learning styles: that only the new rows are fitted and really learn, how it ends early, and what is refused."""

import itertools
import json
import math
import time
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs the [train] extra")


import videonst  # noqa: E402
from videonst.bank import StyleBank  # noqa: E402
from videonst.cli import app  # noqa: E402
from videonst.demo import CLIP  # noqa: E402
from videonst.engines.metadata import read_metadata  # noqa: E402
from videonst.errors import InputError, VideoNSTError  # noqa: E402
from videonst.export import learnt  # noqa: E402
from videonst.network import StyleNetwork  # noqa: E402
from videonst.training import budget, pictures  # noqa: E402
from videonst.training import learn as learning  # noqa: E402
from videonst.training.budget import LEARNING_RATE, SETTLING, Budget, LearnSettings  # noqa: E402
from videonst.training.learn import Learner, LearnProgress  # noqa: E402
from videonst.training.pictures import PICTURE_SIZE, draw_leaves, gather_pictures  # noqa: E402

SETTINGS = LearnSettings(steps=4, batch=2, crop=64)


class SmallFeatures(torch.nn.Module):
    """Five random convolutions in place of VGG-19."""

    name = "small"

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")
        widths = (3, 8, 12, 12, 16, 16, 16)
        self.convolutions = torch.nn.ModuleList(
            torch.nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths)
        )
        for parameter in self.parameters():
            parameter.requires_grad_(False).copy_(torch.randn(parameter.shape, generator=generator) * 0.2)

    def forward(self, image, layers):
        x, found = image.to(self.convolutions[0].weight.dtype) - 0.5, {}
        for name, convolution in zip(self.layers, self.convolutions, strict=True):
            x = torch.relu(convolution(x))
            if name in layers:
                found[name] = x
        return found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small features, few photographs."""
    monkeypatch.setattr(learnt, "open_features", lambda name, vgg: SmallFeatures())
    monkeypatch.setattr(learning, "TRAINING_CROPS", 12)
    monkeypatch.setattr(learning, "VALIDATION_CROPS", 2)


def stripes(colour: tuple[int, int, int] = (230, 40, 20), size: int = 100) -> np.ndarray:
    image = np.full((size, size + 10, 3), 20, np.uint8)
    image[:, ::6] = image[:, 1::6] = colour
    return image


def painting(folder: Path, name: str = "stripes.png", image: np.ndarray | None = None) -> Path:
    cv2.imwrite(str(folder / name), stripes() if image is None else image)
    return folder / name


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "photographs", np.random.default_rng(0)
    folder.mkdir()
    for i in range(3):
        small = rng.integers(0, 256, (4 + 3 * i, 6 + 3 * i, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(small, (100, 80), interpolation=cv2.INTER_CUBIC))
    return folder


def learner(network: StyleNetwork, folder: Path, settings: LearnSettings = SETTINGS, **options: object) -> Learner:
    photographs = [draw_leaves(0)]
    return Learner(network, "base", {"s": [stripes()]}, photographs, SmallFeatures(), folder, settings, **options)


def learn(paintings, out, small_model, photographs, **options):
    options = {"settings": SETTINGS, "content": photographs, "compile": False, "device": "cpu"} | options
    return videonst.learn(paintings, out, into=small_model, **options)


def test_learning_lowers_the_score(small_network: StyleNetwork, tmp_path: Path):
    settings = LearnSettings(steps=60, batch=2, crop=64)
    task = learner(small_network, tmp_path, settings)
    told: list[LearnProgress] = []
    task.run(told.append)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    start = min(s[0] for s in log[0]["starts"])
    assert task.scores["s"] < 0.95 * start
    assert task.budget.step == 60
    assert told[0].state == "preparing"
    assert told[-1].state == "done"
    assert told[-1].share == 1
    assert json.loads((tmp_path / "progress.json").read_text())["step"] == 60
    assert cv2.imread(str(tmp_path / "preview.png")).shape == (192, 2 * 192, 3)


def test_the_same_steps_give_the_same_rows(small_network: StyleNetwork, tmp_path: Path):
    before = {name: value.clone() for name, value in small_network.state_dict().items()}
    rows = []
    for run in ("a", "b"):
        task = learner(small_network, tmp_path / run)
        task.run()
        rows.append(task.best)
    assert torch.equal(*rows)
    other = learner(small_network, tmp_path / "c", LearnSettings(steps=4, batch=2, crop=64, seed=1))
    other.run()
    assert not torch.equal(other.best, rows[0])
    assert all(torch.equal(value, before[name]) for name, value in small_network.state_dict().items())


def test_an_interrupted_run_goes_on_to_the_same_rows(small_network: StyleNetwork, tmp_path: Path):
    whole = learner(small_network, tmp_path / "whole", LearnSettings(steps=6, batch=2, crop=64))
    whole.run()
    part = learner(small_network, tmp_path / "part", LearnSettings(steps=6, batch=2, crop=64))
    step = part._learn_step

    def interrupted(rate: float, number: int) -> None:
        if part.budget.step == 3:
            raise KeyboardInterrupt
        step(rate, number)

    part._learn_step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        part.run()
    rest = learner(small_network, tmp_path / "part", LearnSettings(steps=6, batch=2, crop=64), resume=True)
    assert rest.budget.step == 3
    rest.run()
    assert torch.equal(rest._rows, whole._rows)
    with pytest.raises(InputError, match="another task"):
        learner(small_network, tmp_path / "part", LearnSettings(steps=6, batch=2, crop=64, seed=1), resume=True)
    with pytest.raises(InputError, match="nothing to resume"):
        learner(small_network, tmp_path / "none", resume=True)
    (tmp_path / "part" / "state.pt").write_bytes(b"broken")
    with pytest.raises(InputError, match="damaged"):
        learner(small_network, tmp_path / "part", resume=True)


def test_it_stops_when_told_and_when_the_time_is_up(small_network: StyleNetwork, tmp_path: Path):
    task = learner(small_network, tmp_path, LearnSettings(steps=10**6, batch=2, crop=64))
    task.run(lambda progress: (tmp_path / "stop").touch())
    assert task.budget.step < 1000
    began = time.monotonic()
    short = learner(small_network, tmp_path, LearnSettings(minutes=0.02, batch=2, crop=64))
    short.run()
    assert time.monotonic() - began < 60
    assert short.started


def test_the_rate_holds_and_falls_to_nothing():
    plan = Budget(LearnSettings(steps=100, learning_rate=1.0))
    rates = []
    for plan.step in range(101):
        rates.append(plan.rate)
    assert rates[:51] == [1.0] * 51
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert rates == sorted(rates, reverse=True)
    assert plan.share == 1
    early = Budget(LearnSettings(steps=100, learning_rate=1.0))
    for early.step in range(0, 32, 4):
        early.record(1.0)
    assert early.settled == 0.24  # the seventh score has gained nothing over the first
    early.step = 28
    assert 0 < early.rate < 1
    early.step = 32
    assert early.rate == pytest.approx(0, abs=1e-12)
    assert early.share >= 1
    better = Budget(LearnSettings(steps=100))
    for better.step in range(50):
        better.record(0.99**better.step)
    assert better.settled is None


def test_it_stops_when_the_score_has_settled(
    small_network: StyleNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(learning, "EVALUATE_EVERY", 2)
    monkeypatch.setattr(budget, "SETTLED", math.inf)  # whatever is gained is too little
    task = learner(small_network, tmp_path, LearnSettings(steps=200, batch=2, crop=64))
    rates: list[float] = []
    step = task._learn_step
    task._learn_step = lambda rate, number: (rates.append(rate), step(rate, number))  # type: ignore[method-assign]
    task.run()
    assert task.budget.step == pytest.approx(2 * 7 * (1 + SETTLING), abs=1)
    assert rates[-1] < 0.1 * LEARNING_RATE


def test_a_learnt_style_is_a_style_of_the_new_file(small_model: Path, photographs: Path, tmp_path: Path):
    out = tmp_path / "own.onnx"
    painting(tmp_path, "My stripes!.png")
    painting(tmp_path, "green.png", stripes((20, 240, 30)))
    new = learn(
        [tmp_path / "My stripes!.png", tmp_path / "green.png"], out, small_model, photographs,
        artist="Me", licence="CC BY 4.0",
    )  # fmt: skip
    metadata = read_metadata(out)
    assert metadata.style_names == ("a", "b", "c", "My_stripes", "green")
    assert metadata.styles[3:] == new
    assert metadata.styles[:3] == read_metadata(small_model).styles
    assert metadata.training == read_metadata(small_model).training
    own = new[0]
    assert (own.title, own.artist, own.year, own.licence) == ("My stripes!", "Me", "unknown", "CC BY 4.0")
    assert own.thumbnail.startswith("data:image/jpeg;base64,")
    assert own.learnt is not None
    assert own.learnt.pictures == ("My stripes!.png",)
    assert own.learnt.base == StyleBank(small_model).base
    assert (own.learnt.features, own.learnt.steps) == ("small", 4)
    assert own.learnt.content == "3 pictures of photographs"
    before, after = StyleBank(small_model), StyleBank(out)
    assert np.array_equal(after.rows[:4].view(np.uint32), before.rows.view(np.uint32))
    assert len({after.rows[i].tobytes() for i in range(6)}) == 6
    painted = videonst.load(out, device="cpu")
    frame = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    old = videonst.load(small_model, device="cpu")
    assert np.array_equal(painted.stylize(frame, "a:0.3,b:0.7"), old.stylize(frame, "a:0.3,b:0.7"))
    assert not np.array_equal(painted.stylize(frame, "green"), painted.stylize(frame, "My_stripes"))
    again = learn(painting(tmp_path, "more.png"), out, out, photographs, overwrite=True)
    assert read_metadata(out).style_names[-1] == "more" == again[0].name


def test_an_8_bit_file_beside(small_model: Path, photographs: Path, tmp_path: Path, monkeypatch, caplog):
    out, quick = tmp_path / "own.onnx", tmp_path / "own.int8.onnx"
    (style,) = learn(painting(tmp_path), out, small_model, photographs, int8=True)
    assert read_metadata(quick).precision == "int8"
    assert read_metadata(quick).styles == read_metadata(out).styles
    assert read_metadata(out).styles[-1] == style
    with pytest.raises(InputError, match=r"own.int8.onnx exists|own.onnx exists"):
        learn(painting(tmp_path), out, small_model, photographs, int8=True)
    monkeypatch.setattr(learnt, "export_int8", failing)
    learn(painting(tmp_path), out, small_model, photographs, int8=True, overwrite=True)
    assert "there is no own.int8.onnx: paints too differently" in caplog.text
    assert not quick.exists()
    with pytest.raises(InputError, match="fp16; an 8-bit file is made of one in fp32"):
        learn(painting(tmp_path), tmp_path / "half.onnx", "tiny.fp16", photographs, int8=True)


def failing(*_: object) -> None:
    raise VideoNSTError("paints too differently")


def test_several_pictures_make_one_style(small_model: Path, photographs: Path, tmp_path: Path):
    folder = tmp_path / "artist"
    folder.mkdir()
    for i in range(2):
        painting(folder, f"{i}.png", stripes((200, 40 * i, 30)))
    out = tmp_path / "own.onnx"
    (style,) = learn(folder, out, small_model, photographs, name="artist")
    assert style.name == "artist"
    assert style.learnt is not None
    assert style.learnt.pictures == ("0.png", "1.png")


def test_ctrl_c_writes_the_best_so_far(small_model: Path, photographs: Path, tmp_path: Path):
    out = tmp_path / "own.onnx"

    def interrupt(progress: LearnProgress) -> None:
        if progress.step >= 2:
            raise KeyboardInterrupt

    learning_settings = LearnSettings(steps=10**6, batch=2, crop=64)
    source = painting(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        learn(source, out, small_model, photographs, settings=learning_settings, progress=interrupt)
    metadata = read_metadata(out)
    assert metadata.style_names[-1] == "stripes"
    done = metadata.styles[-1].learnt.steps
    assert done >= 2
    settings = LearnSettings(steps=done + 2, batch=2, crop=64)
    with pytest.raises(InputError, match="exists"):
        learn(source, out, small_model, photographs, settings=settings)
    (style,) = learn(source, out, small_model, photographs, settings=settings, resume=True)
    assert style.learnt.steps == done + 2


def test_a_file_that_is_learnt_into_in_place_can_be_resumed(small_model: Path, photographs: Path, tmp_path: Path):
    own = tmp_path / "own.onnx"
    own.write_bytes(small_model.read_bytes())
    options = {"settings": SETTINGS, "overwrite": True}

    def interrupt(progress: LearnProgress) -> None:
        if progress.step:
            raise KeyboardInterrupt

    source = painting(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        learn(source, own, own, photographs, progress=interrupt, **options)
    with pytest.raises(InputError, match="holds a style 'stripes' already"):
        learn(source, own, own, photographs, **options)
    learn(source, own, own, photographs, resume=True, **options)
    assert read_metadata(own).style_names == ("a", "b", "c", "stripes")
    assert np.array_equal(StyleBank(own).rows[:4], StyleBank(small_model).rows)


@pytest.mark.parametrize("kind", ["grey", "transparent", "sixteen", "wide", "huge"])
def test_unusual_pictures_are_taken(kind: str, small_model: Path, photographs: Path, tmp_path: Path):
    image = stripes()
    if kind == "grey":
        image = image[..., 0]
    if kind == "transparent":
        image = np.dstack([image, np.where(np.arange(110) < 30, 0, 255) * np.ones((100, 1), int)]).astype(np.uint8)
    if kind == "sixteen":
        image = image.astype(np.uint16) * 257
    if kind == "wide":
        image = np.tile(image, (1, 12, 1))
    if kind == "huge":
        image = cv2.resize(image, (6_000, 4_000), interpolation=cv2.INTER_NEAREST)
    source = tmp_path / ("p.jpg" if kind == "huge" else "p.png")
    cv2.imwrite(str(source), image)
    small = LearnSettings(steps=1, batch=1, crop=64, stroke_size="small")
    (style,) = learn(source, tmp_path / "own.onnx", small_model, photographs, settings=small)
    assert math.isfinite(style.learnt.score)


def bad_inputs() -> list[tuple[str, dict, str]]:
    return [
        ("absent", {"paintings": "absent.png"}, "cannot read .*absent.png"),
        ("text", {"paintings": "text.jpg"}, "not a picture that can be read"),
        ("tiny", {"paintings": "tiny.png"}, "30x30; expected sides of 64"),
        ("flat", {"paintings": "flat.png"}, "all of one colour"),
        ("nothing", {"paintings": []}, "nothing to learn from"),
        ("taken", {"paintings": "a.png"}, "holds a style 'a' already; give another name with --as"),
        ("twice", {"paintings": ["stripes.png", "sub/stripes.png"]}, "would both be called 'stripes'"),
        ("name", {"name": "a, b"}, "cannot name a style"),
        ("suffix", {"out": "own.txt"}, "expected a name ending in .onnx"),
        ("model", {"into": "absent.onnx"}, "there is no file absent.onnx"),
        ("unknown model", {"into": "fats"}, "unknown model 'fats'"),
        ("8 bits", {"into": "tiny.int8"}, "is in 8 bits.*videonst export"),
        ("no clip", {"content": "absent.mp4"}, "absent.mp4 does not exist"),
        ("empty", {"content": "sub/empty"}, "no pictures in"),
        ("unreadable photographs", {"content": "sub/broken"}, "none of the 1 pictures"),
        ("device", {"device": "tpu"}, "unknown device 'tpu'"),
    ]


@pytest.mark.parametrize(("changes", "wrong"), [case[1:] for case in bad_inputs()], ids=[c[0] for c in bad_inputs()])
def test_bad_input_is_one_line_and_nothing_is_written(
    changes: dict, wrong: str, small_model: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for folder in ("sub/empty", "sub/broken"):
        Path(folder).mkdir(parents=True)
    Path("text.jpg").write_text("no picture")
    Path("sub/broken/text.jpg").write_text("no picture")
    for name, image in (
        ("tiny.png", stripes(size=30)[:, :30]), ("flat.png", np.full((90, 90, 3), 77, np.uint8)),
        ("a.png", stripes()), ("stripes.png", stripes()), ("sub/stripes.png", stripes()),
    ):  # fmt: skip
        cv2.imwrite(name, image)
    arguments = {"paintings": "stripes.png", "out": "own.onnx", "into": small_model, "content": photographs} | changes
    with pytest.raises(InputError, match=wrong) as refused:
        learn(
            arguments.pop("paintings"), arguments.pop("out"), arguments.pop("into"), arguments.pop("content"),
            **arguments,
        )  # fmt: skip
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob("own*"))


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"minutes": 0.0}, "0 minutes"),
        ({"minutes": math.nan}, "nan minutes"),
        ({"steps": 0}, "steps is 0"),
        ({"strength": 0.0}, "strength of the style is 0"),
        ({"stroke_size": "giant"}, "unknown stroke size 'giant'; expected small, medium, large"),
    ],
)
def test_bad_settings_are_refused(settings: dict, wrong: str):
    with pytest.raises(InputError, match=wrong):
        LearnSettings(**settings)


def test_a_file_of_another_version_is_refused(small_model: Path, photographs: Path, tmp_path: Path):
    import onnx

    model = onnx.load(small_model)
    next(entry for entry in model.metadata_props if entry.key == "format").value = "2"
    onnx.save(model, tmp_path / "newer.onnx")
    with pytest.raises(InputError, match="model format 2, this version reads 1; upgrade"):
        learn(painting(tmp_path), tmp_path / "own.onnx", tmp_path / "newer.onnx", photographs)


def test_a_loss_that_is_no_number_is_stepped_back_from(small_network: StyleNetwork, tmp_path: Path, caplog):
    task = learner(small_network, tmp_path / "once", LearnSettings(steps=6, batch=2, crop=64))
    step, rates = task._learn_step, []

    def break_once(rate: float, number: int) -> None:
        if number == 3:
            task._rows.data[:] = math.nan
        step(rate, number)
        rates.append(task._optimiser.param_groups[0]["lr"] / rate)

    task._learn_step = break_once  # type: ignore[method-assign]
    task.run()
    assert (rates[:3], rates[4:]) == ([1, 1, 1], [0.5, 0.5])
    assert caplog.text.count("no number at step 3; going on from the best so far") == 1
    assert torch.isfinite(task.best).all()
    assert torch.isfinite(task._rows).all()
    hopeless = learner(small_network, tmp_path / "ever", LearnSettings(steps=40, batch=2, crop=64))
    hopeless._losses = lambda crops, content, rows, target: rows.mean(1) * math.nan
    with pytest.raises(VideoNSTError, match="however small the steps"):
        hopeless.run()


def test_a_score_that_is_no_number_is_not_the_best(small_network: StyleNetwork, tmp_path: Path):
    task = learner(small_network, tmp_path)
    task.run()
    best, scores = task.best.clone(), task.scores
    task._measure = lambda: [math.nan]  # type: ignore[method-assign]
    task._rows.data[:] = math.nan
    task._evaluate()
    assert torch.equal(task.best, best)
    assert task.scores == scores


def test_a_budget_goes_on_where_it_was():
    plan = Budget(LearnSettings(steps=100))
    for plan.step in range(0, 32, 4):
        plan.record(1.0)
    for settings, settled in ((LearnSettings(steps=100), 0.24), (LearnSettings(steps=200), None)):
        again = Budget(settings)
        again.resume(plan.state())
        assert (again.step, again.settled) == (28, settled)
    assert again.history == []  # more was asked for: it may settle anew


def test_pictures_to_learn_on(photographs: Path):
    built_in, words = gather_pictures(None)
    assert words == "the built-in set"
    assert len(built_in) == 1 + 12 + 24
    assert {min(picture.shape[:2]) for picture in built_in} == {PICTURE_SIZE}
    assert np.array_equal(draw_leaves(3), draw_leaves(3))
    assert not np.array_equal(draw_leaves(3), draw_leaves(4))
    frames, words = gather_pictures(CLIP)
    assert words == "32 frames of sample.mp4"
    assert len({frame.tobytes() for frame in frames}) == 32
    assert len(gather_pictures(photographs)[0]) == 3


def test_a_folder_of_large_photographs_is_not_held_in_memory(photographs: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[weakref.ref] = []

    def large(path: Path) -> np.ndarray:
        image = np.zeros((600, 800, 3), np.uint8)
        read.append(weakref.ref(image))
        assert sum(known() is not None for known in read) <= 2  # this one, and the one before until it is replaced
        return image

    monkeypatch.setattr(pictures, "read_image", large)
    painting(photographs, "one_more.png")
    found, _ = gather_pictures(photographs)
    assert [picture.shape for picture in found] == [(288, 384, 3)] * 4 == [(288, 384, 3)] * len(read)


def test_the_command(small_model: Path, photographs: Path, tmp_path: Path):
    out = tmp_path / "own.onnx"
    done = CliRunner().invoke(
        app,
        ["learn", str(painting(tmp_path, image=stripes(size=140))), "--into", str(small_model), "--out", str(out),
         "--content", str(photographs), "--steps", "2", "--as", "mine", "--title", "Mine", "--stroke-size", "small"],
    )  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    assert "mine: 2 steps" in done.output
    assert read_metadata(out).styles[-1].title == "Mine"


def test_without_torch_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    for module in [name for name in sys.modules if name.startswith("videonst.export")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(InputError, match=r"pip install 'videonst\[train\]'"):
        videonst.learn("a.png", tmp_path / "own.onnx")
    refused = CliRunner().invoke(app, ["learn", "a.png", "--out", str(tmp_path / "own.onnx")])
    assert isinstance(refused.exception, InputError)
    assert "pip install 'videonst[train]'" in str(refused.exception)
