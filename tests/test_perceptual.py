from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [train] extra")

from torchvision.models import VGG19_Weights  # noqa: E402

from videonst.errors import InputError  # noqa: E402
from videonst.perceptual import (  # noqa: E402
    Vgg19,
    content_loss,
    grid_loss,
    style_loss,
    style_statistics,
    total_variation_loss,
    vgg,
)
from videonst.perceptual.vgg import LAYERS, MEAN, STD, max_pool  # noqa: E402


def test_taps_equal_torchvision(random_vgg: Path):
    """Every tap is what torchvision's own modules give, pooling and input convention included."""
    vgg = Vgg19(random_vgg)
    image = torch.rand(2, 3, 50, 37)
    taps = vgg(image, LAYERS)
    x = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    names = {index: name for name, index in LAYERS.items()}
    for index, layer in enumerate(vgg.features):
        x = layer(x)
        if index in names:
            assert torch.equal(taps[names[index]], x), names[index]


def test_max_pool_equals_torch_with_its_gradient():
    x = torch.randn(2, 4, 9, 12, requires_grad=True)
    ours, theirs = max_pool(x), torch.nn.functional.max_pool2d(x, 2)
    assert torch.equal(ours, theirs)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs)]
    assert torch.equal(*grads)


def test_real_weights_know_textures(data: Path):
    """With the published weights, two crops of one painting are nearer in style than two paintings."""
    from videonst.training.data import read_image, resize_short_side, to_tensor

    vgg = Vgg19(data / "vgg19-features.safetensors")

    def statistics(name: str, left: int):
        image = resize_short_side(read_image(data / "styles" / f"{name}.jpg"), 192)[:, left : left + 128]
        with torch.inference_mode():
            return style_statistics(vgg(to_tensor(image), ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]))

    same = style_loss(statistics("seine", 0), statistics("seine", 60))
    other = style_loss(statistics("seine", 0), statistics("great_wave", 0))
    assert same < 0.5 * other


@pytest.mark.parametrize("name", ["missing.safetensors", "broken.safetensors", "text.pth"])
def test_bad_weights_are_one_line(tmp_path: Path, name: str):
    if name != "missing.safetensors":
        (tmp_path / name).write_text("not weights")
    with pytest.raises(InputError, match=name):
        Vgg19(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut off"])
def test_a_broken_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes):
    """What torch's cache holds is what torchvision opens."""
    file = tmp_path / "checkpoints" / Path(VGG19_Weights.IMAGENET1K_V1.url).name
    file.parent.mkdir()
    file.write_bytes(content)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(vgg, "vgg19", lambda weights, progress: weights.get_state_dict(progress=progress))
    with pytest.raises(InputError, match=f"in {tmp_path} cannot be read; remove them"):
        Vgg19()


def test_statistics_against_numpy():
    """Gram matrix of Gatys et al., over the number of positions."""
    features = torch.randn(1, 3, 40, 24)
    found = style_statistics({"relu3_1": features})["relu3_1"]
    inner = features.numpy()[0].reshape(3, -1).astype(np.float64)
    np.testing.assert_allclose(found.gram[0], inner @ inner.T / inner.shape[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.mean[0], inner.mean(1), rtol=1e-4, atol=1e-6)


def test_style_loss_is_zero_on_itself_and_blind_to_scale():
    a, b = ({"relu2_1": torch.rand(2, 8, 64, 64) ** k} for k in (1, 3))
    assert style_loss(style_statistics(a), style_statistics(a)).tolist() == [0, 0]
    bigger = [style_statistics({k: 10 * v for k, v in x.items()}) for x in (a, b)]
    torch.testing.assert_close(style_loss(style_statistics(a), style_statistics(b)), style_loss(*bigger))


def test_style_loss_ignores_arrangement():
    x = torch.rand(1, 4, 20, 20)
    shuffled = x.flatten(2)[:, :, torch.randperm(400)].view_as(x)
    loss = style_loss(*(style_statistics({"relu5_1": v}) for v in (x, shuffled)))
    assert loss.item() < 1e-10


def test_content_loss_is_relative():
    p = torch.rand(2, 4, 5, 5)
    torch.testing.assert_close(content_loss(1.1 * p, p), torch.full((2,), 0.01), atol=1e-5, rtol=0)


def test_total_variation_of_a_ramp():
    ramp = torch.arange(10.0).repeat(8, 1)[None, None].repeat(1, 3, 1, 1) * 0.1
    torch.testing.assert_close(total_variation_loss(ramp), torch.tensor([0.01]))


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize(("period", "times"), [(2, 2), (4, 1)])  # a pattern of period 2 has period 4 as well
def test_grid_loss_sees_lattice_patterns_and_not_a_photograph(direction, period: int, times: int, portrait: np.ndarray):
    photo = torch.from_numpy(portrait[:352, :352]).permute(2, 0, 1)[None].float() / 255 * 0.8 + 0.1
    rows, columns = torch.meshgrid(torch.arange(352), torch.arange(352), indexing="ij")
    phase = (direction[0] * rows + direction[1] * columns) % period
    pattern = torch.where(phase < period // 2, 0.05, -0.05)
    assert grid_loss(photo).item() < 3e-4
    torch.testing.assert_close(grid_loss(photo + pattern), torch.tensor([times * 0.05**2]), rtol=0.15, atol=0)
