"""The compact perceptual network, and which features are used when."""

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [train] extra")

from typer.testing import CliRunner  # noqa: E402

from videonst.cli import app  # noqa: E402
from videonst.errors import InputError  # noqa: E402
from videonst.models import find_shipped  # noqa: E402
from videonst.perceptual import Vgg19, features, open_features, style_statistics  # noqa: E402
from videonst.perceptual.compact import WEIGHTS, Compact, Relu, open_compact, pack, unpack  # noqa: E402
from videonst.training import Trainer, list_paintings, make_recipe  # noqa: E402
from videonst.training.data import read_image, resize_short_side, to_tensor  # noqa: E402

MOST_BYTES = 4_000_000
TOY = {
    "tier": "tiny", "steps": 1, "batch": 2, "painting_size": 64, "warmup": 1,
    "stages": [{"until": 1, "crop": 64}],
}  # fmt: skip


@pytest.fixture(scope="module")
def compact() -> Compact:
    return open_compact()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (70, 80, 3), dtype=np.uint8)
    for folder in ("styles", "content"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "noise.png"), noise)
    return tmp_path


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where torch would keep its downloads."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_shipped_file_is_small():
    assert find_shipped(WEIGHTS).stat().st_size <= MOST_BYTES


def test_weights_come_back_within_their_step():
    """8 bits for each output channel of the convolutions behind the first, half precision for the rest."""
    state = Compact().state_dict()
    state["trunk.0.0.weight"][0] = 0  # a channel that does nothing
    back = unpack(pack(state))
    assert back.keys() == state.keys()
    for name, value in state.items():
        step = value.flatten(1).abs().amax(1) / 127 if value.ndim == 4 and name != "first.weight" else None
        if step is None:
            assert torch.equal(back[name], value.half().float()), name
        else:
            error = (back[name] - value).flatten(1).abs().amax(1)
            assert (error <= 0.5001 * step).all(), name


@pytest.mark.parametrize("size", [(64, 48), (37, 51), (16, 16)])
def test_shapes_are_those_of_vgg(compact: Compact, random_vgg: Path, size: tuple[int, int]):
    image = torch.rand(2, 3, *size)
    found, wanted = (net(image, Compact.layers) for net in (compact, Vgg19(random_vgg)))
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in wanted.items()}


def test_layers_do_not_depend_on_what_else_is_asked(compact: Compact):
    image = torch.rand(1, 3, 40, 40)
    whole = compact(image, Compact.layers)
    for name in Compact.layers:
        assert torch.equal(compact(image, [name])[name], whole[name]), name


def test_is_near_vgg(compact: Compact, data: Path):
    """On held-out photographs: relu1_1 exact up to half precision, the others within a part of their variance."""
    vgg = Vgg19(data / "vgg19-features.safetensors", average=True)
    for path in sorted((data / "heldout").iterdir())[:3]:
        image = to_tensor(resize_short_side(read_image(path), 128))
        with torch.inference_mode():
            found, wanted = compact(image, Compact.layers), vgg(image, Compact.layers)
        torch.testing.assert_close(found["relu1_1"], wanted["relu1_1"], rtol=1e-2, atol=1.0)
        for name, most, most_gram in (
            ("relu2_1", 0.12, 0.15), ("relu3_1", 0.25, 0.15), ("relu4_1", 0.35, 0.15), ("relu5_1", 0.6, 0.5),
        ):  # fmt: skip
            w = wanted[name]
            error = (found[name] - w).square().sum() / (w - w.mean((2, 3), keepdim=True)).square().sum()
            assert error < most, (path.name, name)
            gram, exact = (style_statistics({name: t[name]})[name].gram for t in (found, wanted))
            assert (gram - exact).square().sum() < most_gram * exact.square().sum(), (path.name, name)


def test_auto_takes_vgg_where_it_is(no_cache: Path, random_vgg: Path, monkeypatch: pytest.MonkeyPatch):
    assert open_features().name == "compact"
    assert open_features("auto", random_vgg).name == "vgg19"
    no_cache.mkdir(parents=True)
    (no_cache / "vgg19-dcbb9e9d.pth").touch()
    monkeypatch.setattr(features, "Vgg19", lambda weights: f"opened {weights}")
    assert open_features() == "opened None"


def test_refusals(random_vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match=r"unknown features 'vgg16'; expected auto, vgg19 or compact"):
        open_features("vgg16")
    with pytest.raises(InputError, match="features compact need no VGG-19 weights"):
        open_features("compact", random_vgg)
    with pytest.raises(InputError, match=r"random\.safetensors does not hold the compact perceptual network"):
        open_compact(random_vgg)
    monkeypatch.setattr("videonst.models.FOLDERS", (tmp_path,))
    with pytest.raises(InputError, match=f"lacks {WEIGHTS}"):
        open_features("compact")


def test_trains_on_compact_and_says_so(folders: Path, no_cache: Path):
    """`videonst train` without VGG-19's weights: one step, recorded in the model's recipe; no way back to VGG-19."""
    from videonst.models import read_metadata

    out = folders / "toy.onnx"
    (folders / "toy.toml").write_text(
        'tier = "tiny"\nsteps = 1\nbatch = 2\npainting_size = 64\nwarmup = 1\nstages = [{ until = 1.0, crop = 64 }]\n'
    )
    arguments = ["train", "--recipe", "toy.toml", "--styles", "styles", "--content", "content", "--out", str(out)]
    arguments = [str(folders / a) if a in {"toy.toml", "styles", "content"} else a for a in arguments]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "features: compact" in result.stderr
    assert read_metadata(out).training.recipe["features"] == "compact"


def test_run_goes_on_with_its_own_features_only(folders: Path, compact: Compact, random_vgg: Path):
    def trainer(network: features.Features, **changes: object) -> Trainer:
        recipe = make_recipe(TOY | changes)
        return Trainer(recipe, list_paintings(folders / "styles"), folders / "content", folders / "run", network)

    trainer(open_compact()).run()
    assert trainer(open_compact()).step == 1
    with pytest.raises(InputError, match=r"made with features compact, not vgg19; go on with --features compact"):
        trainer(Vgg19(random_vgg))
    with pytest.raises(InputError, match="the recipe wants features vgg19, not compact"):
        trainer(open_compact(), features="vgg19")
    with pytest.raises(InputError, match=r"features compact lack relu3_3; they have relu1_1"):
        trainer(open_compact(), content_layer="relu3_3")


def test_relu_equals_torch_with_its_gradient():
    x = torch.randn(2, 4, 5, 6, requires_grad=True)
    ours, theirs = Relu.apply(x), torch.relu(x)
    assert torch.equal(ours, theirs)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs)))
