"""The temporal stage: losses on known motion, synthetic frames against what they should hold, and the training."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [train] extra")

from videonst.errors import InputError  # noqa: E402
from videonst.perceptual import Vgg19  # noqa: E402
from videonst.perceptual.temporal import (  # noqa: E402
    BRIGHTNESS_RELAXATION,
    luma,
    temporal_feature_loss,
    temporal_loss,
    warp,
    warping_error,
)
from videonst.training import Trainer, list_paintings, make_recipe, motion, trainer  # noqa: E402

STAGE = {"until": 1, "crop": 64, "temporal": 2.0, "temporal_features": 0.5}
TOY = {
    "tier": "tiny", "steps": 5, "batch": 2, "painting_size": 72, "warmup": 2, "content_layer": "relu3_1",
    "style_layers": ["relu1_1", "relu2_1"], "stages": [STAGE],
}  # fmt: skip


def constant_flow(x: float, y: float, height: int = 48, width: int = 40) -> torch.Tensor:
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, height, width)


@pytest.fixture
def photo(portrait: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(portrait[80:128, 100:140].copy()).permute(2, 0, 1)[None].float() / 255


# --- losses ---


def test_warp_by_whole_pixels_is_a_shift(photo: torch.Tensor):
    moved = warp(photo, constant_flow(3, -5))
    torch.testing.assert_close(moved[..., 5:, :-3], photo[..., :-5, 3:], atol=1e-4, rtol=0)


def test_warp_by_fractions_follows_a_ramp():
    ramp = (torch.arange(40.0) * 2).view(1, 1, 1, -1) + torch.arange(48.0).view(1, 1, -1, 1)
    moved = warp(ramp, constant_flow(0.25, -1.5))
    # The kernel of torch (a = -0.75) places a slope to within 0.05 pixels.
    torch.testing.assert_close(moved[..., 5:-5, 5:-5], (ramp + 2 * 0.25 - 1.5)[..., 5:-5, 5:-5], atol=0.1, rtol=0)


def test_warping_error_is_the_root_mean_square_where_the_motion_holds(photo: torch.Tensor):
    second = torch.roll(photo, (0, -4), (2, 3)) + torch.tensor([0.3, 0.0, -0.4]).view(1, 3, 1, 1)
    valid = torch.zeros(1, 1, 48, 40)
    valid[..., 4:-4, 4:-6] = 1
    found = warping_error(second, photo, constant_flow(4, 0), valid)
    torch.testing.assert_close(found, torch.tensor([(0.25 / 3) ** 0.5]))
    assert warping_error(second, photo, constant_flow(4, 0), 0 * valid).item() == 0


def test_temporal_loss_is_0_for_texture_that_follows_and_1_for_independent_texture():
    noise = torch.rand(2, 3, 48, 40)
    valid, still = torch.ones(1, 1, 48, 40), torch.zeros(1, 1, 48, 40)
    valid[..., :4] = valid[..., -4:] = 0
    follows = temporal_loss(torch.roll(noise[:1], -3, 3), noise[:1], constant_flow(3, 0), valid, still)
    assert follows.item() < 1e-5
    assert temporal_loss(noise[:1], noise[1:], constant_flow(0, 0), valid, still).item() == pytest.approx(1, abs=0.1)


def test_temporal_loss_cannot_be_lowered_by_fading():
    noise = 0.5 + 0.3 * torch.randn(2, 3, 48, 40)
    faded = 0.5 + 0.5 * (noise - 0.5)
    valid, still = torch.ones(1, 1, 48, 40), torch.zeros(1, 1, 48, 40)
    both = [temporal_loss(x[:1], x[1:], constant_flow(0.5, 1), valid, still) for x in (noise, faded)]
    torch.testing.assert_close(*both, rtol=0.01, atol=0)


def test_temporal_loss_lets_changes_of_brightness_through(photo: torch.Tensor):
    brightening = torch.full((1, 1, 48, 40), 0.2)
    valid = torch.ones(1, 1, 48, 40)
    followed = photo + BRIGHTNESS_RELAXATION * brightening
    assert temporal_loss(followed, photo, constant_flow(0, 0), valid, brightening).item() < 1e-6
    assert temporal_loss(photo, photo, constant_flow(0, 0), valid, brightening).item() > 0.01


def test_feature_loss_scales_the_flow():
    features = torch.randn(1, 8, 12, 10)
    valid = torch.zeros(1, 1, 48, 40)
    valid[..., 8:-8, 8:-8] = 1
    moved = torch.roll(features, (2, -1), (2, 3))
    assert temporal_feature_loss(moved, features, constant_flow(4, -8), valid).item() < 1e-6
    assert temporal_feature_loss(moved, features, constant_flow(0, 0), valid).item() > 0.5


# --- synthetic motion ---


def only(monkeypatch: pytest.MonkeyPatch, kind: str, **constants: object) -> None:
    """Draws one kind of motion, without exposure, noise and compression unless they are given."""
    monkeypatch.setattr(motion, "SHARES", tuple(float(k == kind) for k in motion.KINDS))
    quiet = {"EXPOSURE_SHARE": 0, "NOISE": 0, "COMPRESSION_SHARE": 0}
    for name, value in (quiet | constants).items():
        monkeypatch.setattr(motion, name, value)


def test_whole_shift_is_the_same_picture_elsewhere(photo: torch.Tensor, monkeypatch):
    only(monkeypatch, "whole")
    for seed in range(8):
        found = motion.move(photo, (seed,))
        x, y = (int(v) for v in found.flow[0, :, 0, 0])
        assert torch.equal(found.flow, constant_flow(x, y))
        assert max(abs(x), abs(y)) <= motion.SHIFT
        inside = np.zeros((48, 40))
        inside[max(0, 2 - y) : 48 - max(0, y + 2), max(0, 2 - x) : 40 - max(0, x + 2)] = 1
        rows, columns = (slice(max(0, -d), n - max(0, d)) for d, n in ((y, 48), (x, 40)))
        there = photo[..., max(0, y) : 48 + min(0, y), max(0, x) : 40 + min(0, x)]
        torch.testing.assert_close(found.second[..., rows, columns], there, atol=1e-4, rtol=0)
        np.testing.assert_array_equal(found.valid[0, 0], inside)
        assert found.brightening.abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["fraction", "deform"])
def test_flow_is_that_of_the_second_frame(kind: str, monkeypatch):
    """A wave of which the value is known everywhere: the second frame holds it at the pixel plus its flow."""
    only(monkeypatch, kind)

    def wave(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (0.5 + 0.4 * torch.sin(x / 5 + 0.3) * torch.cos(y / 6))[:, None].repeat(1, 3, 1, 1)

    y, x = (v[None].float() for v in torch.meshgrid(torch.arange(96), torch.arange(80), indexing="ij"))
    found = motion.move(wave(x, y), (5,))
    assert found.flow.std() > 0.3
    assert found.valid.mean() > 0.5
    error = (found.second - wave(x + found.flow[:, 0], y + found.flow[:, 1])).abs() * found.valid
    assert error.max() < 0.004
    variation = found.flow.flatten(2).std(2).min()
    assert variation > 0.3 if kind == "deform" else variation == 0


def test_still_frame_differs_by_noise_of_the_stated_size(monkeypatch):
    only(monkeypatch, "still", NOISE=0.02)
    grey = torch.full((16, 3, 64, 64), 0.5)
    found = motion.move(grey, (1,))
    assert not found.flow.any()
    assert not found.brightening.any()
    noise = (found.second - grey).std((1, 2, 3))
    assert 0 < noise.min() < 0.01 < noise.max() < 0.0205
    assert found.second.mean((1, 2, 3)).sub(0.5).abs().max() < 0.001


def test_brightening_is_the_change_of_exposure_alone(photo: torch.Tensor, monkeypatch):
    only(monkeypatch, "still", EXPOSURE_SHARE=1, NOISE=0.02)
    noisy = motion.move(photo, (3,))
    only(monkeypatch, "still", EXPOSURE_SHARE=1, NOISE=0)
    clean = motion.move(photo, (3,))
    torch.testing.assert_close(noisy.brightening, clean.brightening)
    torch.testing.assert_close(clean.brightening, luma(clean.second) - luma(photo), atol=1e-5, rtol=0)
    assert clean.brightening.abs().max() > 0.005


def test_the_same_seed_gives_the_same_frame_and_another_seed_another(photo: torch.Tensor):
    batch = photo.repeat(4, 1, 1, 1)
    a, b, c = (motion.move(batch, seed) for seed in ((0, 7), (0, 7), (0, 8)))
    for name in ("second", "flow", "valid", "brightening"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert not torch.equal(a.flow, c.flow)
    assert a.second.min() >= 0
    assert a.second.max() <= 1


def test_compression_loses_what_jpeg_loses(photo: torch.Tensor):
    """Against libjpeg at a quality whose table for the mean of a block, 8, is a step of one level."""
    picture = (photo[0].permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8)
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    theirs = np.abs(cv2.imdecode(coded, cv2.IMREAD_COLOR).astype(float) - picture).mean()
    ours = (motion.compress(photo, torch.ones(1, 1, 1, 1)) - photo).abs().mean().item() * 255
    assert 0.5 < ours / theirs < 2
    fine = motion.compress(photo, torch.full((1, 1, 1, 1), 1e-3))
    assert (fine - photo).abs().max() < 1e-3
    coarse = motion.compress(photo, torch.full((1, 1, 1, 1), 1.6))
    torch.testing.assert_close(motion.compress(coarse, torch.full((1, 1, 1, 1), 1.6)), coarse, atol=1e-4, rtol=0)


# --- training ---


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, shape in (("styles", (80, 90, 3)), ("content", (96, 100, 3))):
        (folder / name).mkdir()
        for i in range(2 + 2 * (name == "content")):
            small = rng.integers(0, 256, (shape[0] // (2 + i), shape[1] // (2 + i), 3), dtype=np.uint8)
            cv2.imwrite(str(folder / name / f"{i}.png"), cv2.resize(small, shape[1::-1], interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="module")
def vgg(random_vgg: Path) -> Vgg19:
    return Vgg19(random_vgg)


def make(folders: Path, run: Path, vgg: Vgg19, **changes: object) -> Trainer:
    return Trainer(make_recipe(TOY | changes), list_paintings(folders / "styles"), folders / "content", run, vgg)


def read_log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def untimed(run: Path) -> list[dict]:
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in read_log(run)]


def test_weights_of_0_are_a_stage_without_motion(folders: Path, tmp_path: Path, vgg: Vgg19, monkeypatch):
    """No second frame is drawn or painted, and the log is that of a recipe which does not name the weights."""

    def refuse(*args: object) -> None:
        raise AssertionError("a second frame was drawn")

    monkeypatch.setattr(trainer, "move", refuse)
    plain = make(folders, tmp_path / "a", vgg, stages=[{"until": 1, "crop": 64}])
    zero = make(folders, tmp_path / "b", vgg, stages=[STAGE | {"temporal": 0, "temporal_features": 0.0}])
    for run in (plain, zero):
        run.run()
    for name, value in plain.network.state_dict().items():
        assert torch.equal(value, zero.network.state_dict()[name]), name
    known = {"step", "seconds", "loss", "gradient_norm", "slots", "content", "style", "pixel"}
    assert set(read_log(tmp_path / "b")[-1]) == known


def test_temporal_stage_lowers_the_warping_error(folders: Path, tmp_path: Path, vgg: Vgg19):
    changes = {"steps": 24, "learning_rate": 0.02}
    make(folders, tmp_path / "steady", vgg, **changes).run()
    log = read_log(tmp_path / "steady")
    plain = make(folders, tmp_path / "plain", vgg, **changes, stages=[{"until": 1, "crop": 64}])
    plain.run()
    assert log[-1]["warping_error"] < 0.8 * plain.warping_error()
    early, late = (np.mean([entry["temporal"] for entry in part]) for part in (log[:10], log[-10:]))
    assert late < early
    assert all(len(entry["temporal"]) == len(entry["temporal_features"]) == 2 for entry in log)


def test_stopped_run_with_motion_resumes_to_the_same_weights(folders: Path, tmp_path: Path, vgg: Vgg19):
    def stop_after_3(progress: trainer.Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    whole = make(folders, tmp_path / "whole", vgg)
    whole.run()
    with pytest.raises(KeyboardInterrupt):
        make(folders, tmp_path / "stopped", vgg).run(stop_after_3, every_seconds=0)
    resumed = make(folders, tmp_path / "stopped", vgg)
    assert resumed.step == 3
    resumed.run()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "stopped")


@pytest.mark.parametrize("weight", ["temporal", "temporal_features"])
def test_negative_weights_are_one_line(weight: str):
    with pytest.raises(InputError, match=r"^[^\n]*temporal_features must be at least 0$"):
        make_recipe(TOY | {"stages": [STAGE | {weight: -1}]})
