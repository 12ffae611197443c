"""The tool that distils the deep end of the compact network, on noise and a VGG-19 with random weights."""

import json
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [train] extra")

from safetensors.torch import load_file  # noqa: E402

from videonst.models import find_shipped  # noqa: E402
from videonst.perceptual.compact import SCALE, WEIGHTS, open_compact  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
DEEP = ("trunk.3", "trunk.4", "read.relu5_1")


@pytest.fixture
def distil_deep(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The tool, with few squares and nothing compiled."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.chdir(ROOT)
    import distil_deep
    import distil_pictures

    monkeypatch.setattr(distil_deep, "BEGIN", 6)
    monkeypatch.setattr(distil_deep, "BATCH_OF_COORDINATES", 4)
    monkeypatch.setattr(distil_pictures, "POOL_FROM", 6)
    monkeypatch.setattr(distil_pictures, "POOL", 2)
    monkeypatch.setattr(distil_pictures, "POOL_SHARE", 1.0)
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    return distil_deep


@pytest.fixture
def options(tmp_path: Path, random_vgg: Path) -> Namespace:
    for folder in ("content", "styles"):
        (tmp_path / folder).mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (96, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / folder / "noise.png"), noise)
    return Namespace(
        vgg=random_vgg, content=tmp_path / "content", styles=tmp_path / "styles", start=find_shipped(WEIGHTS),
        out=tmp_path / "run", steps=2, batch=2, crop=64, rate=1e-3, seed=0, device="cpu",
    )  # fmt: skip


def test_learns_what_lies_behind_relu4_2_only(distil_deep, options: Namespace):  # type: ignore[no-untyped-def]
    """The rest of the file is that of the start to the last bit; the run goes on from its checkpoint."""
    distil_deep.DeepDistillation(options).run()
    start, first = load_file(options.start), load_file(options.out / WEIGHTS)
    assert first.keys() == start.keys()
    for name, value in start.items():
        if name.startswith(DEEP):
            assert not torch.equal(first[name], value), name
        elif name.endswith(SCALE):
            torch.testing.assert_close(first[name], value, rtol=1e-6, atol=0)
        else:
            assert torch.equal(first[name], value), name
    options.steps = 3
    again = distil_deep.DeepDistillation(options)
    assert again.step == 2
    again.run()
    assert [json.loads(row)["step"] for row in (options.out / "log.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_least_squares_start_is_near_its_teacher(distil_deep, options: Namespace):  # type: ignore[no-untyped-def]
    """On the squares that it was fitted to; the written file gives what the run computes, in VGG-19's own units."""
    run = distil_deep.DeepDistillation(options)
    run._save()
    network = open_compact(options.out / WEIGHTS)
    for x, wanted in run.kept[:3]:
        with torch.no_grad():
            found = run._deep(x.float()) * run.scale
        error = (found - wanted.float()).square().mean() / wanted.float().square().mean()
        assert error < 0.1
    image = run.pictures.batch(0, 1, options.crop)
    with torch.no_grad():
        own = run._deep(run._shallow(image).float()) * run.scale
        written = network(image, ["relu5_1"])["relu5_1"]
    assert (own - written).square().mean() < 0.02 * written.square().mean()
