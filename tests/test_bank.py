"""Changes of the styles of a model file: what is left must paint as before, bit for bit."""

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

pytest.importorskip("onnx", reason="needs the [train] extra")

from videonst.bank import StyleBank, edit_styles
from videonst.cli import app
from videonst.engines.metadata import LearntInfo, StyleInfo, held_model, read_metadata
from videonst.engines.providers import open_session
from videonst.errors import InputError
from videonst.models import find_model

LEARNT = LearntInfo(
    pictures=("own.jpg",), base="abc", features="vgg19", content="noise", steps=3, seconds=1.5, strength=1.0,
    stroke_size="medium", seed=0, score=0.5,
)  # fmt: skip


def paint(model: Path | ort.InferenceSession, weights: dict[int, float]) -> list[np.ndarray]:
    """All outputs for a frame of noise."""
    session = open_session(model, "cpu", 1) if isinstance(model, Path) else model
    slots = next(i for i in session.get_inputs() if i.name == "style_weights").shape[1]
    mix = np.zeros((1, slots), np.float32)
    for slot, weight in weights.items():
        mix[0, slot] = weight
    frame = np.random.default_rng(0).integers(0, 256, (1, 40, 52, 3), dtype=np.uint8)
    return session.run(None, {"frame": frame, "style_weights": mix})


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def with_style(model: Path, out: Path, name: str, seed: int = 0) -> Path:
    """The file with one more style, a random row."""
    bank = StyleBank(model)
    row = np.random.default_rng(seed).normal(1, 0.5, bank.rows.shape[1]).astype(np.float32)
    own = StyleInfo(name=name, title="Mine", licence="CC0", thumbnail="data:,", learnt=LEARNT)
    bank.set_styles([*bank.styles.values(), (own, row)])
    bank.save(out)
    return out


@pytest.mark.parametrize(("name", "most"), [("tiny", 1), ("tiny.fp16", 4)])
def test_added_styles_are_painted_with_held_statistics_too(name: str, most: int, tmp_path: Path):
    """The second graph of a file takes the styles that the file has. A random one is rough in half precision."""
    path = with_style(find_model(name), tmp_path / "one.onnx", "mine")
    held = open_session(held_model(path, read_metadata(path).held), "cpu", 1)
    frame = np.random.default_rng(0).integers(0, 256, (1, 40, 52, 3), dtype=np.uint8)
    whole = open_session(path, "cpu", 1)
    slots = whole.get_inputs()[1].shape[1]
    feed = {"frame": frame, "style_weights": np.eye(1, slots, slots - 1, dtype=np.float32)}
    expected, feed["statistics"] = whole.run(None, feed)
    found = held.run(None, feed)[0].astype(int)
    assert np.abs(found - expected).max() <= most
    another = held.run(None, feed | {"style_weights": np.eye(1, slots, 1, dtype=np.float32)})[0]
    assert np.abs(found - another).mean() > 10


@pytest.mark.parametrize("name", ["tiny", "tiny.fp16", "tiny.int8"])
def test_adding_styles_leaves_the_others_bit_for_bit(name: str, tmp_path: Path):
    """On files of every precision: the rows, and every output, also of mixtures."""
    shipped = find_model(name)
    one = with_style(shipped, tmp_path / "one.onnx", "mine")
    two = with_style(one, tmp_path / "two.onnx", "other", seed=1)
    before, after = StyleBank(shipped), StyleBank(two)
    assert np.array_equal(after.rows[: len(before.rows)].view(np.uint32), before.rows.view(np.uint32))
    assert after.base == before.base
    assert after.metadata.styles[:-2] == before.metadata.styles
    assert after.metadata.styles[-2].learnt == LEARNT
    old, new = open_session(shipped, "cpu", 1), open_session(two, "cpu", 1)
    rng = np.random.default_rng(1)
    random = dict(enumerate((shares := rng.random(18)) / shares.sum()))
    for weights in ({3: 1.0}, {0: 0.3, 5: 0.7}, {0: -0.4, 2: 0.7, 17: 0.7}, random):
        assert same(paint(old, weights), paint(new, weights)), weights
    assert not same(paint(new, {3: 1.0}), paint(new, {19: 1.0}))


def test_names_can_be_exchanged(small_model: Path, tmp_path: Path):
    out = tmp_path / "out.onnx"
    assert edit_styles(small_model, out, rename={"a": "b", "b": "a"}).style_names == ("b", "a", "c")
    assert same(paint(out, {1: 1.0}), paint(small_model, {1: 1.0}))


def test_merged_styles_paint_as_in_their_own_file(small_model: Path, tmp_path: Path):
    mine = with_style(small_model, tmp_path / "mine.onnx", "mine")
    other = with_style(small_model, tmp_path / "other.onnx", "theirs", seed=1)
    out = tmp_path / "out.onnx"
    made = edit_styles(mine, out, rename={"mine": "ours"}, merge=[other], order=["theirs", "b"], remove=["a"])
    assert made == read_metadata(out)
    assert made.style_names == ("theirs", "b", "c", "ours", "a")
    assert [style.title for style in made.styles] == ["Mine", "B", "C", "Mine", "A"]
    assert made.styles[0].learnt == made.styles[3].learnt == LEARNT
    thumbnails = {style.name: style.thumbnail for style in read_metadata(small_model).styles}
    assert made.styles[1].thumbnail == thumbnails["b"] != ""
    for slot, (file, index) in enumerate([(other, 4), (other, 2), (other, 3), (mine, 4), (other, 1)], 1):
        assert same(paint(out, {slot: 1.0}), paint(file, {index: 1.0}))
        assert same(paint(out, {0: 0.5, slot: 0.5}), paint(file, {0: 0.5, index: 0.5}))


def test_a_file_is_replaced_where_no_target_is_given(small_model: Path, tmp_path: Path):
    mine = with_style(small_model, tmp_path / "mine.onnx", "mine")
    assert edit_styles(mine, remove=["a", "b", "c"]).style_names == ("mine",)
    assert read_metadata(mine).style_names == ("mine",)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.onnx"]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"remove": ["zz"]}, "holds no style 'zz'; it holds a, b, c"),
        ({"rename": {"zz": "y"}}, "holds no style 'zz'"),
        ({"rename": {"a": "b"}}, "'b' would name two styles"),
        ({"rename": {"a": "x:y"}}, "cannot name a style"),
        ({"order": ["zz"]}, "holds no style 'zz'"),
        ({"remove": ["a", "b", "c"]}, "no style would be left"),
        ({"merge": ["tiny"]}, "have different convolutions"),
        ({"merge": ["fast"]}, "has tier fast"),
        ({"merge": ["tiny.int8"]}, "has precision int8"),
    ],
)
def test_what_cannot_be_done_is_refused(small_model: Path, tmp_path: Path, changes: dict, wrong: str):
    before = small_model.read_bytes()
    if "merge" in changes:
        changes = {"merge": [find_model(name) for name in changes["merge"]]}
    with pytest.raises(InputError, match=wrong):
        edit_styles(small_model, tmp_path / "out.onnx", **changes)
    assert small_model.read_bytes() == before
    assert list(tmp_path.iterdir()) == []


def test_8_bit_files_with_other_ranges_are_not_merged(tmp_path: Path):
    import onnx
    from onnx import numpy_helper

    shipped = find_model("tiny.int8")
    model = onnx.load(shipped)
    branch = next(a.g for node in model.graph.node for a in node.attribute if a.name == "else_branch")
    scale = next(node for node in branch.node if node.op_type == "QLinearConv").input[1]
    tensor = next(t for t in model.graph.initializer if t.name == scale)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), scale))
    onnx.save(model, tmp_path / "other.int8.onnx")
    other = with_style(tmp_path / "other.int8.onnx", tmp_path / "mine.int8.onnx", "mine")
    with pytest.raises(InputError, match="merge the fp32 files"):
        edit_styles(shipped, tmp_path / "out.onnx", merge=[other])
    same_ranges = with_style(shipped, tmp_path / "same.int8.onnx", "mine")
    assert edit_styles(shipped, tmp_path / "out.onnx", merge=[same_ranges]).style_names[-1] == "mine"


def test_styles_of_one_name_that_differ_are_not_merged(small_model: Path, tmp_path: Path):
    one = with_style(small_model, tmp_path / "one.onnx", "mine")
    two = with_style(small_model, tmp_path / "two.onnx", "mine", seed=1)
    with pytest.raises(InputError, match="'mine', and they differ; rename"):
        edit_styles(one, merge=[two])
    with pytest.raises(InputError, match="exists"):
        edit_styles(one, two, remove=["a"])


def test_a_model_without_a_bank_is_refused(small_model: Path, tmp_path: Path):
    import onnx

    model = onnx.load(small_model)
    next(t for t in model.graph.initializer if t.name == "bank").name = "other"
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(InputError, match="holds no bank"):
        StyleBank(tmp_path / "broken.onnx")


def test_metadata_without_learnt_styles_reads_as_before(small_model: Path):
    assert all(style.learnt is None for style in read_metadata(small_model).styles)
    assert dataclasses.replace(read_metadata(small_model).styles[0], learnt=LEARNT).learnt == LEARNT


def test_edit_on_the_command_line(small_model: Path, tmp_path: Path):
    out = tmp_path / "out.onnx"
    arguments = ["styles", "edit", str(small_model), "--rename", "a=wave", "--order", "c, wave", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert read_metadata(out).style_names == ("c", "wave", "b")
    done = CliRunner().invoke(
        app, ["styles", "edit", "tiny", "--remove", "udnie", "--out", str(tmp_path / "tiny.onnx")]
    )
    assert done.exit_code == 0, done.output
    assert "udnie" not in read_metadata(tmp_path / "tiny.onnx").style_names
    small = str(small_model)
    for wrong, arguments in (
        ("nothing to change", [small]),
        ("cannot read 'a'", [small, "--rename", "a"]),
        ("tiny is a shipped model; name the file to write with --out", ["tiny", "--remove", "udnie"]),
        ("there is no file absent.onnx", ["absent.onnx", "--remove", "udnie"]),
    ):
        refused = CliRunner().invoke(app, ["styles", "edit", *arguments])
        assert isinstance(refused.exception, InputError)
        assert wrong in str(refused.exception)
