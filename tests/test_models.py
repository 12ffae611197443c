"""Finding model files, and reading what they say about themselves."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from videonst import models
from videonst.engines.metadata import (
    HeldGraph,
    ModelMetadata,
    Parity,
    StyleInfo,
    TrainingInfo,
    held_model,
    read_metadata,
)
from videonst.errors import InputError
from videonst.models import find_model, list_models

METADATA = ModelMetadata(
    tier="fast",
    styles=(StyleInfo(name="wave", title="Die große Welle", artist="北斎"), StyleInfo(name="scream")),
    training=TrainingInfo(recipe={"tier": "fast", "zoom": [1.0, 1.6]}, steps=3, commit="abc", data="photographs"),
    opset=18,
    precision="fp16",
    parity=(Parity(height=64, width=48, maximum=3, mean=0.25, p99_9=2.0, over_one=0.01),),
)


@pytest.fixture
def shipped(small_model, tmp_path, monkeypatch):
    """A folder of models in place of the shipped ones: fast, its half-precision twin, and tiny."""
    for name in ("fast.onnx", "fast.fp16.onnx", "tiny.onnx"):
        shutil.copy(small_model, tmp_path / name)
    monkeypatch.setattr(models, "FOLDERS", (tmp_path / "absent", tmp_path))
    return tmp_path


def test_names_and_precision(shipped):
    assert find_model("fast") == shipped / "fast.onnx"
    assert find_model("fast", precision="fp16") == shipped / "fast.fp16.onnx"
    assert find_model("fast.fp16") == shipped / "fast.fp16.onnx"
    assert find_model("tiny", precision="fp16") == shipped / "tiny.onnx"


def test_any_file_by_path(shipped, small_model):
    assert find_model(small_model) == small_model
    assert find_model(str(small_model), precision="fp16") == small_model


def test_unknown_models(shipped):
    with pytest.raises(InputError, match=r"unknown model 'fats'; did you mean fast"):
        find_model("fats")
    with pytest.raises(InputError, match=r"expected a path ending in \.onnx or one of fast, fast\.fp16, tiny"):
        find_model("xyz")
    with pytest.raises(InputError, match=r"there is no file .*nowhere\.onnx"):
        find_model("nowhere.onnx")


def test_no_models_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "FOLDERS", (tmp_path,))
    assert list_models() == []
    with pytest.raises(InputError, match="none are installed"):
        find_model("fast")


def test_listing(shipped):
    found = list_models()
    assert [m.name for m in found] == ["fast", "fast.fp16", "tiny"]
    assert found[0].size == (shipped / "fast.onnx").stat().st_size
    assert found[0].metadata.style_names == ("a", "b", "c")


def test_properties_round_trip_as_json():
    properties = METADATA.to_properties()
    assert json.loads(properties["styles"])[0]["artist"] == "北斎"
    restored = ModelMetadata.from_properties(properties | {"author": "someone"}, "file")
    assert restored == METADATA
    held = dataclasses.replace(METADATA, held=HeldGraph(model="AAAA", weights=("bank",)))
    assert ModelMetadata.from_properties(held.to_properties(), "file") == held


def test_files_of_before_there_was_a_second_graph():
    properties = METADATA.to_properties()
    del properties["held"]
    assert ModelMetadata.from_properties(properties, "file") == METADATA


def test_the_second_graph_has_the_weights_of_the_file(small_model, tmp_path):
    onnx = pytest.importorskip("onnx")
    held = read_metadata(small_model).held
    found = {tensor.name: tensor for tensor in onnx.load_from_string(held_model(small_model, held)).graph.initializer}
    for tensor in onnx.load(small_model).graph.initializer:
        if tensor.name in held.weights:
            assert found.pop(tensor.name) == tensor
    assert not found.keys() & set(held.weights)
    for damaged, what in (
        (dataclasses.replace(held, weights=("elsewhere",)), "KeyError"),
        (dataclasses.replace(held, model="not base64!"), "Error"),
    ):
        with pytest.raises(InputError, match=rf"small\.onnx is damaged \(.*{what}.*\); export the model again"):
            held_model(small_model, damaged)
    with pytest.raises(InputError, match="cannot read the model"):
        held_model(tmp_path / "none.onnx", held)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "2"}, "model format 2, this version reads 1; upgrade"),
        ({"styles": "not json"}, "damaged"),
        ({"styles": "[]"}, "one style or more"),
        ({"styles": '[{"title": "nameless"}]'}, "damaged"),
        ({"styles": '[{"name": "a"}, {"name": "a"}]'}, "its own name"),
        ({"size": "16"}, "damaged"),
        ({"parity": '[{"height": 3}]'}, "damaged"),
        ({"held": '{"model": 3}'}, "damaged"),
        ({"precision": '"int4"'}, "expected fp32 or fp16"),
    ],
)
def test_damaged_properties(change, message):
    with pytest.raises(InputError, match=message) as caught:
        ModelMetadata.from_properties(METADATA.to_properties() | change, "model.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello world", b"PK\x03\x04" + bytes(100), bytes(range(256)), b"\xff" * 50])
def test_files_that_are_no_model(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.onnx is not a"):
        read_metadata(path)


def test_foreign_onnx_file(tmp_path):
    from videonst.engines.providers import PROBE_MODEL

    path = tmp_path / "foreign.onnx"
    path.write_bytes(PROBE_MODEL)
    with pytest.raises(InputError, match=r"foreign\.onnx is not a videonst model; expected an \.onnx file made by"):
        read_metadata(path)


def test_model_cut_short(small_model, tmp_path):
    content = small_model.read_bytes()
    path = tmp_path / "cut.onnx"
    for length in np.linspace(1, len(content) - 1, 23).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut\.onnx"):
            read_metadata(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot read the model"):
        read_metadata(tmp_path / "none.onnx")
