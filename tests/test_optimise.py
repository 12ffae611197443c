"""The optimise engine: losses, descent, pictures, paintings."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from clips import make_clip

torch = pytest.importorskip("torch", reason="needs the [train] extra")

from optimising import LAYERS, QUICK, SmallFeatures, engine, loss_of, picture, write_painting, written  # noqa: E402

from videonst.errors import InputError, VideoNSTError  # noqa: E402
from videonst.frame import Frame  # noqa: E402
from videonst.optimise import PRESETS, OptimiseEngine, descent, memory, painter  # noqa: E402
from videonst.optimise import paintings as paintings_module  # noqa: E402
from videonst.optimise.objective import Losses, Objective, Region  # noqa: E402
from videonst.optimise.paintings import read_masks, read_painting  # noqa: E402
from videonst.optimise.presets import STYLE_LAYERS  # noqa: E402
from videonst.perceptual import losses  # noqa: E402
from videonst.perceptual.compact import Compact, open_compact  # noqa: E402
from videonst.perceptual.losses import Statistics, style_statistics  # noqa: E402
from videonst.resize import scaled  # noqa: E402
from videonst.styles import StyleMix  # noqa: E402
from videonst.training.data import to_tensor  # noqa: E402


@pytest.fixture
def painting(tmp_path):
    return write_painting(tmp_path / "painting.png")


# The losses


def test_the_style_loss_falls_along_its_gradient():
    network, distance = SmallFeatures(), losses.gram_distance
    style_layers = ("relu1_1", "relu2_1")
    target = style_statistics(network(to_tensor(picture(1)), style_layers))
    image, seen = to_tensor(picture(2)), []
    for _ in range(8):
        image.requires_grad_()
        loss = losses.style_loss(style_statistics(network(image, style_layers)), target, distance)[0]
        (gradient,) = torch.autograd.grad(loss, image)
        seen.append(float(loss.detach()))
        image = image.detach() - 0.005 * gradient / gradient.abs().max()
    assert all(after < before for before, after in itertools.pairwise(seen))


@pytest.mark.parametrize("name", losses.DISTANCES)
def test_equal_statistics_have_no_distance(name):
    statistics = style_statistics({"x": torch.rand(1, 6, 9, 9, generator=torch.Generator().manual_seed(1))})["x"]
    other = style_statistics({"x": torch.rand(1, 6, 9, 9, generator=torch.Generator().manual_seed(2)) * 2})["x"]
    assert abs(float(losses.DISTANCES[name](statistics, statistics)[0])) < 1e-4
    assert float(losses.DISTANCES[name](other, statistics)[0]) > 0.1


def test_wasserstein_of_independent_channels_is_the_closed_form():
    """Of Gaussians with diagonal covariances: |m - a|^2 + sum (sqrt c - sqrt k)^2."""

    def moments(mean, variance):
        mean = torch.tensor([mean])
        return Statistics(torch.diag_embed(torch.tensor([variance])) + mean[:, :, None] * mean[:, None], mean)

    found, wanted = moments([1.0, 2.0], [0.5, 4.0]), moments([0.0, 1.5], [2.0, 1.0])
    expected = 1 + 0.25 + (2**0.5 - 0.5**0.5) ** 2 + 1
    distance = float(losses.wasserstein_distance(found, wanted)[0])
    assert distance * float(wanted.gram.diagonal(dim1=1, dim2=2).sum()) == pytest.approx(expected, rel=1e-3)


def test_the_laplacian_of_a_parabola_is_constant():
    rows = torch.arange(12.0) ** 2
    parabola = (rows[:, None] / 200).expand(1, 3, 12, 12)
    assert float(losses.laplacian_loss(parabola, torch.zeros(1, 3, 12, 12), 1)[0]) == pytest.approx(
        (3 * 2 / 200) ** 2, rel=1e-4
    )
    ramp = (torch.arange(12.0)[:, None] / 12).expand(1, 3, 12, 12)
    assert float(losses.laplacian_loss(ramp, torch.zeros(1, 3, 12, 12), 2)[0]) == pytest.approx(0, abs=1e-12)


def test_statistics_of_a_region_are_those_of_its_pixels():
    features = torch.rand(1, 5, 8, 10)
    mask = torch.zeros(1, 1, 8, 10)
    mask[..., 2:6, 3:9] = 1
    inside = style_statistics({"x": features[..., 2:6, 3:9]})["x"]
    found = style_statistics({"x": features}, mask)["x"]
    torch.testing.assert_close(found.gram, inside.gram)
    torch.testing.assert_close(found.mean, inside.mean)


def test_a_blend_of_styles_is_the_style_of_both_pictures_side_by_side():
    a, b = torch.rand(1, 4, 6, 6), torch.rand(1, 4, 6, 6)
    blended = losses.blend([style_statistics({"x": a}), style_statistics({"x": b})], [0.5, 0.5])["x"]
    both = style_statistics({"x": torch.cat((a, b), 3)})["x"]
    torch.testing.assert_close(blended.gram, both.gram)
    torch.testing.assert_close(blended.mean, both.mean)


# The descent


def bowl(image):
    """Least at 0.3 everywhere."""
    total = (image - 0.3).square().sum()
    return total, Losses(float(total.detach()), 0.0, 0.0)


@pytest.mark.parametrize("method", descent.METHODS)
def test_the_least_loss_is_found(method):
    result = descent.METHODS[method](torch.full((1, 3, 4, 4), 0.9), bowl, 200, lambda *_: None)
    torch.testing.assert_close(result, torch.full((1, 3, 4, 4), 0.3), atol=0.02, rtol=0)


@pytest.mark.parametrize("method", descent.METHODS)
def test_a_loss_that_is_no_number_is_stepped_back_from(method):
    calls = 0

    def sometimes(image):
        nonlocal calls
        calls += 1
        total, _ = bowl(image)
        total = total * (math.nan if calls in (5, 6, 9) else 1)
        return total, Losses(float(total.detach()), 0.0, 0.0)

    seen = []
    result = descent.METHODS[method](
        torch.full((1, 3, 4, 4), 0.9), sometimes, 200, lambda _, loss, __: seen.append(loss)
    )
    assert all(math.isfinite(loss.total) for loss in seen)
    torch.testing.assert_close(result, torch.full((1, 3, 4, 4), 0.3), atol=0.1, rtol=0)


@pytest.mark.parametrize("method", descent.METHODS)
def test_what_is_as_wanted_stays(method):
    wanted = torch.full((1, 3, 4, 4), 0.3)
    result = descent.METHODS[method](wanted, bowl, 20, lambda *_: None)
    torch.testing.assert_close(result, wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize("method", descent.METHODS)
def test_a_loss_that_stays_no_number_is_an_error_with_the_best_so_far(method):
    for good, has_best in ((3, True), (0, False)):
        calls = itertools.count()

        def evaluate(image, calls=calls, good=good):
            total = bowl(image)[0] * (1 if next(calls) < good else math.nan)
            return total, Losses(float(total.detach()), 0.0, 0.0)

        with pytest.raises(descent.DivergedError, match="no number") as raised:
            descent.METHODS[method](torch.full((1, 3, 4, 4), 0.9), evaluate, 60, lambda *_: None)
        assert (raised.value.best is not None) == has_best
        assert not has_best or bool(torch.isfinite(raised.value.best).all())


def test_a_film_goes_on_after_a_picture_that_diverged(painting, monkeypatch, caplog):
    """The best so far is kept, with a warning."""

    def breaks(start, evaluate, steps, report, **_):
        report(1, evaluate(start)[1], lambda: start)
        raise descent.DivergedError(start)

    monkeypatch.setitem(descent.METHODS, "lbfgs", breaks)
    photo = picture()
    result = engine(painting).stylize(Frame(photo), StyleMix.parse(str(painting)))
    np.testing.assert_array_equal(result.pixels, photo)
    assert "the best so far is kept" in caplog.text


# Pictures


def test_scales_that_are_too_small_leave_their_steps_to_the_next():
    assert painter._plan(1024, 768, (10, 20, 30)) == [((512, 384), 30), ((1024, 768), 30)]
    assert painter._plan(1280, 1024, (10, 20, 30)) == [((320, 256), 10), ((640, 512), 20), ((1280, 1024), 30)]
    assert painter._plan(64, 48, (10, 20, 30)) == [((64, 48), 60)]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_lowers_its_loss(painting, name):
    preset = replace(PRESETS[name].with_steps(12), start="content", half=False)
    optimiser, photo = engine(painting, preset), picture(height=72, width=64)
    result = optimiser.stylize(Frame(photo), StyleMix.parse(str(painting))).pixels
    before, after = (loss_of(optimiser, photo, painting, p) for p in (photo, result))
    assert after.total < 0.7 * before.total
    assert result.shape == photo.shape


@pytest.mark.parametrize("name", PRESETS)
def test_the_compact_network_takes_no_more_steps_than_help(painting, name):
    """A preset by name; one of the user's own is as it is."""
    features = open_compact()
    by_name = OptimiseEngine(str(painting), name, features=features, device="cpu").preset
    own = OptimiseEngine(str(painting), PRESETS[name], features=features, device="cpu").preset
    assert own == PRESETS[name]
    assert engine(painting, name).preset == own  # another network
    assert replace(by_name, steps=own.steps) == own
    if name in ("good", "best"):
        assert sum(own.next_steps) <= sum(by_name.steps) < sum(own.steps) / 3
    else:
        assert by_name == own


def test_the_same_seed_gives_the_same_picture(painting):
    def paint(seed):
        optimiser = engine(painting, replace(QUICK, start="noise"), seed=seed)
        return optimiser.stylize(Frame(picture()), StyleMix.parse(str(painting))).pixels

    np.testing.assert_array_equal(paint(1), paint(1))
    assert (paint(1) != paint(2)).mean() > 0.5


def test_statistics_of_many_sizes_are_not_all_kept(tmp_path):
    painting = written(tmp_path / "large.png", picture(1, 160, 160))
    network, image = SmallFeatures().to(torch.bfloat16), read_painting(painting)
    optimiser = OptimiseEngine(str(painting), QUICK, features=network, device="cpu")  # whatever it was used for before
    paintings, mix = optimiser._painter._paintings, StyleMix.parse(str(painting))
    sides = range(64, 64 + paintings_module.MOST_KNOWN + 5)
    for side in [*sides, 64]:
        found = paintings.regions(mix, side**2)[0].style
    assert len(paintings._known) == paintings_module.MOST_KNOWN
    expected = style_statistics(network(to_tensor(scaled(image, (64, 64))), LAYERS))
    for layer, statistics in found.items():
        torch.testing.assert_close(statistics.gram, expected[layer].gram)


def test_a_seed_below_zero_is_refused(painting):
    with pytest.raises(InputError, match="the seed is -1"):
        engine(painting, replace(QUICK, start="noise"), seed=-1)


def test_strength_and_colour(painting):
    optimiser, photo = engine(painting), picture()
    style = str(painting)
    frame = Frame(photo)
    assert optimiser.stylize(frame, StyleMix.parse(style, strength=0)) is frame
    kept = optimiser.stylize(frame, StyleMix.parse(style, keep_colour=True)).pixels
    chroma = [cv2.cvtColor(p, cv2.COLOR_RGB2YCrCb)[..., 1:].astype(int) for p in (kept, photo)]
    assert np.abs(chroma[0] - chroma[1]).mean() < 8
    weak, strong = (
        loss_of(optimiser, photo, painting, optimiser.stylize(frame, StyleMix.parse(style, strength=s)).pixels).style
        for s in (0.3, 2)
    )
    assert strong < weak


def test_the_fast_network_is_where_it_starts_if_that_is_nearer(painting, small_model, monkeypatch):
    """A start is chosen by loss: never worse than the photograph."""
    from videonst.engines.onnx import OnnxEngine

    optimiser, photo = engine(painting, replace(QUICK, start="auto"), model=str(small_model)), picture()
    mix = StyleMix.parse(str(painting))
    begun = optimiser.begin(Frame(photo), mix, optimiser.choose_start(Frame(photo), mix))
    network = OnnxEngine(small_model, "cpu")
    choices = [photo, *(network.stylize(Frame(photo), StyleMix.parse(name)).pixels for name in "abc")]
    totals = [loss_of(optimiser, photo, painting, choice).total for choice in choices]
    np.testing.assert_array_equal(begun, choices[int(np.argmin(totals))])


def test_regions_have_the_styles_of_their_own(tmp_path, painting):
    """Above black, below white: each half takes the statistics of that half of the painting."""
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, :, 0] = 255  # BGR: blue paint
    halves[32:] = (0, 0, 255)
    style, masks = tmp_path / "style.png", tmp_path / "mask.png"
    cv2.imwrite(str(style), halves)
    flat = np.zeros((64, 64, 3), np.uint8)
    flat[32:] = 255
    cv2.imwrite(str(masks), flat)
    preset = replace(QUICK, steps=(40,), content_weight=0.0)
    optimiser = OptimiseEngine(str(style), preset, features=SmallFeatures(), device="cpu", masks=(masks, [masks]))
    result = optimiser.stylize(Frame(picture(height=64, width=64)), StyleMix.parse(str(style))).pixels.astype(int)
    above, below = (half[..., 2].mean() - half[..., 0].mean() for half in (result[:28], result[36:]))
    assert above > 30
    assert below < -30


def test_masks_are_read_by_colour(tmp_path):
    mask = np.zeros((20, 20, 3), np.uint8)
    mask[5:15] = (10, 200, 30)
    cv2.imwrite(str(tmp_path / "a.png"), mask)
    cv2.imwrite(str(tmp_path / "b.png"), np.rot90(mask))
    labels, (other,) = read_masks(tmp_path / "a.png", [tmp_path / "b.png"])
    np.testing.assert_array_equal(np.rot90(labels), other)
    assert np.unique(labels).tolist() == [0, 1]
    cv2.imwrite(str(tmp_path / "c.png"), np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8))
    with pytest.raises(InputError, match="colours"):
        read_masks(tmp_path / "c.png", [])
    cv2.imwrite(str(tmp_path / "large.png"), cv2.resize(mask, (4000, 3000), interpolation=cv2.INTER_NEAREST))
    large, _ = read_masks(tmp_path / "large.png", [])
    assert large.shape == (1536, 2048)
    np.testing.assert_array_equal(np.unique(large), [0, 1])


def test_a_mask_may_be_a_jpeg(tmp_path):
    """Whose colours are not quite flat, least of all at edges."""
    mask = np.full((64, 80, 3), (200, 30, 60), np.uint8)
    mask[:, 44:] = (40, 180, 90)
    written(tmp_path / "exact.png", mask)
    cv2.imwrite(str(tmp_path / "saved.jpg"), mask, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert len(np.unique(cv2.imread(str(tmp_path / "saved.jpg")).reshape(-1, 3), axis=0)) > 2
    for first, second in itertools.product(("exact.png", "saved.jpg"), repeat=2):
        labels, (other,) = read_masks(tmp_path / first, [tmp_path / second])
        assert np.unique(labels).tolist() == [0, 1]
        assert (labels == labels[0, 0])[:, :40].all()
        assert (labels == labels[0, -1])[:, 48:].all()
        np.testing.assert_array_equal(labels[:, ::79], other[:, ::79])


@pytest.mark.parametrize("colours", [(0, 255, 128), (0, 1, 2)])
def test_a_colour_of_the_painting_alone_is_no_region(tmp_path, colours):
    """Also where the colours are numbers of classes."""
    content, style = (np.zeros((40, 40, 3), np.uint8) + colours[0] for _ in range(2))
    content[20:] = colours[1]
    style[10:20], style[20:] = colours[2], colours[1]
    labels, (other,) = read_masks(written(tmp_path / "a.png", content), [written(tmp_path / "b.png", style)])
    np.testing.assert_array_equal(other[:10], labels[:10])
    np.testing.assert_array_equal(other[20:], labels[20:])
    assert not np.isin(other[10:20], labels).any()


def test_masks_of_other_proportions_are_refused(tmp_path, painting):
    for name, size in (("square.png", (40, 40)), ("wide.png", (80, 40))):
        mask = np.zeros((*size[::-1], 3), np.uint8)
        mask[:20] = 255
        cv2.imwrite(str(tmp_path / name), mask)
    square, wide = tmp_path / "square.png", tmp_path / "wide.png"
    with pytest.raises(InputError, match="proportions"):
        engine(painting, masks=(wide, [wide]))
    optimiser = engine(painting, masks=(wide, [square]))
    optimiser.check(162, 80)
    with pytest.raises(InputError, match="mask of the content is 80x40, the picture 80x80"):
        optimiser.check(80, 80)


def test_colours_of_paintings_are_read_as_meant(tmp_path):
    """Of each kind of file, against the colours it was made from."""
    image = pytest.importorskip("PIL.Image", reason="writes CMYK")
    colour = picture(3, 72, 80)
    opacity = np.linspace(0, 255, 80).astype(np.uint8)[None, :, None].repeat(72, 0)
    over_white = 255 - (255 - colour.astype(float)) * opacity / 255
    image.fromarray(colour).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98, subsampling=0)
    written(tmp_path / "grey.png", colour[..., 0])
    written(tmp_path / "deep.png", colour[..., ::-1].astype(np.uint16) * 257)
    written(tmp_path / "alpha.png", np.dstack((colour[..., ::-1], opacity)))
    expected = {"cmyk.jpg": colour, "grey.png": colour[..., :1], "deep.png": colour, "alpha.png": over_white}
    for name, pixels in expected.items():
        assert np.abs(read_painting(tmp_path / name) - pixels.astype(float)).mean() < 3, name


def painting_files(folder):
    colour = picture(3, 72, 72)
    yield written(folder / "grey.png", colour[..., 0])
    yield written(folder / "deep.png", colour.astype(np.uint16) * 257)
    yield written(folder / "alpha.png", np.dstack((colour, np.full(colour.shape[:2], 128, np.uint8))))
    yield written(folder / "photo.jpg", colour)
    cv2.imwritemulti(str(folder / "pages.tiff"), [colour, colour[::-1]])
    yield folder / "pages.tiff"
    make_clip(folder / "moving.mp4", pts=range(0, 300, 100), last_duration=100, size=(96, 96)).rename(
        folder / "moving.gif"
    )
    yield folder / "moving.gif"


def test_paintings_of_every_kind_are_read(tmp_path):
    for path in painting_files(tmp_path):
        result = engine(path).stylize(Frame(picture()), StyleMix.parse(str(path)))
        assert result.pixels.std() > 5, path


def test_paintings_that_cannot_be_used_are_refused_in_one_line(tmp_path, painting):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    written(tmp_path / "tiny.png", picture(height=24, width=24))
    (tmp_path / "folder").mkdir()
    wrong = {
        "broken.jpg": "read",
        "empty.png": "painting",
        "tiny.png": "24x24",
        "none.png": "exist",
        "folder": "a folder",
    }
    for name, said in wrong.items():
        with pytest.raises(InputError, match=said) as raised:
            engine(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_a_name_needs_a_folder_of_paintings(tmp_path, painting):
    with pytest.raises(InputError, match="--paintings"):
        engine("starry_night")
    optimiser = OptimiseEngine("painting", QUICK, features=SmallFeatures(), device="cpu", paintings=tmp_path)
    assert [style.name for style in optimiser.description.styles] == ["painting"]
    with pytest.raises(InputError, match="it has painting"):
        OptimiseEngine("monet", QUICK, features=SmallFeatures(), device="cpu", paintings=tmp_path)


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("monet.jpg", {"monet.jpg": 1}),
        ("monet.jpg:0.7, udnie:0.3", {"monet.jpg": 0.7, "udnie": 0.3}),
        (r"C:\art\monet.jpg", {r"C:\art\monet.jpg": 1}),
        (r"C:\art\monet.jpg:3, C:/b.png", {r"C:\art\monet.jpg": 0.75, "C:/b.png": 0.25}),
        ("art/a:b.jpg", {"art/a:b.jpg": 1}),
    ],
)
def test_a_path_may_stand_where_a_style_may(text, shares):
    assert dict(StyleMix.parse(text).shares) == pytest.approx(shares)


def test_a_path_with_commas_stands_alone(tmp_path):
    path = tmp_path / "Monet, Claude: Seine, 1890.jpg"
    path.touch()
    assert StyleMix.parse(str(path)).shares == ((str(path), 1.0),)
    assert len(StyleMix.parse(f"{tmp_path}/a.jpg,b.jpg").shares) == 2


def test_a_model_refuses_a_picture_with_what_to_do():
    with pytest.raises(InputError, match="--engine optimise"):
        StyleMix.parse("monet.jpg").weights(["udnie"])


def test_memory_is_refused_with_a_size_that_fits(painting):
    limit = memory.parse_bytes("2GB")
    optimiser = engine(painting, memory=limit)
    with pytest.raises(InputError, match="--resize") as raised:
        optimiser.check(3840, 2160)
    width, height = map(int, str(raised.value).rpartition(" ")[2].split("x"))
    optimiser.check(width, height)
    assert width / height == pytest.approx(16 / 9, rel=0.02)
    with pytest.raises(InputError):
        optimiser.check(int(width * 1.05), int(height * 1.05))
    with pytest.raises(InputError, match="expected sides"):
        optimiser.check(20, 100)
    assert memory.parse_bytes("2 GiB") == 2 << 30
    with pytest.raises(InputError):
        memory.parse_bytes("much")


def test_a_region_costs_what_is_kept_for_its_gradient():
    """Bytes that autograd saves, with as many channels as VGG-19 has."""
    image, rows = torch.rand(1, 3, 64, 64, requires_grad=True), torch.arange(64).view(1, 1, 64, 1).expand(1, 1, 64, 64)
    found = Compact().requires_grad_(False)(image, STYLE_LAYERS)

    def saved(count):
        kept = {}

        def keep(x):
            kept[x.untyped_storage().data_ptr()] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            statistics = [style_statistics(found, (rows % count == i).float()) for i in range(count)]
        return sum(x.untyped_storage().nbytes() for x in kept.values()) if statistics else 0

    per_region = (saved(3) - saved(1)) / 2 / 64**2
    assert 0.9 * memory.BYTES_PER_REGION["fp32"] < per_region <= memory.BYTES_PER_REGION["fp32"]
    assert memory.BYTES_PER_REGION["bf16"] == memory.BYTES_PER_REGION["fp32"] / 2


def test_the_regions_of_a_mask_count(tmp_path, painting):
    mask = np.zeros((64, 80, 3), np.uint8)
    mask[:, 40:] = 255
    content, style = written(tmp_path / "a.png", mask), written(tmp_path / "b.png", cv2.resize(mask, (96, 96)))
    limit = memory.needed_bytes(800, 640, half=False, history=QUICK.history)
    engine(painting, memory=limit).check(800, 640)
    with pytest.raises(InputError, match="needs about"):
        engine(painting, memory=limit, masks=(content, [style])).check(800, 640)


def test_a_container_allows_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CONTAINER_LIMIT", tmp_path / "memory.max")
    whole = memory.device_bytes("cpu")
    for text, expected in (("2000000000\n", int(0.9 * 2e9)), ("max\n", whole)):
        memory.CONTAINER_LIMIT.write_text(text)
        assert memory.device_bytes("cpu") == expected
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=4e9))
    with pytest.raises(InputError, match=r"what may be used here is 3.6 GB; \d+x\d+ fits"):
        memory.check_memory(3840, 2160, None, half=True, device="cuda")


def test_out_of_memory_names_a_smaller_size(painting, monkeypatch):
    def exhausted(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setitem(descent.METHODS, "lbfgs", exhausted)
    with pytest.raises(VideoNSTError, match="--resize 40x32"):
        engine(painting).stylize(Frame(picture()), StyleMix.parse(str(painting)))


def test_ctrl_c_gives_the_best_so_far(painting):
    def interrupt(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    optimiser, photo = engine(painting, replace(QUICK, steps=(30,)), watch=interrupt), picture()
    result = optimiser.stylize(Frame(photo), StyleMix.parse(str(painting))).pixels
    assert optimiser.is_interrupted
    with pytest.raises(KeyboardInterrupt):  # so that a loop over pictures ends
        optimiser.stylize(Frame(photo), StyleMix.parse(str(painting)))
    again = optimiser.stylize(Frame(photo), StyleMix.parse(str(painting))).pixels
    np.testing.assert_array_equal(again, result)  # the same interruption at the same step
    assert loss_of(optimiser, photo, painting, result).total < loss_of(optimiser, photo, painting, photo).total


@pytest.mark.parametrize("failure", [KeyboardInterrupt, descent.DivergedError])
def test_a_finer_scale_that_is_never_begun_leaves_the_coarser(painting, monkeypatch, failure, caplog):
    """The best so far is what the coarser one made, enlarged. Before the first step there is nothing to save."""
    monkeypatch.setattr(painter, "LEAST_COARSE_SIDE", 16)
    original, made = descent.METHODS["lbfgs"], []

    def breaks(start, *arguments, **options):
        if len(made) == fail_at:
            raise failure(*([None] if failure is descent.DivergedError else []))
        made.append(original(start, *arguments, **options))
        return made[-1]

    monkeypatch.setitem(descent.METHODS, "lbfgs", breaks)
    optimiser = engine(painting, replace(QUICK, steps=(4, 4)))
    fail_at = 1
    result = optimiser.stylize(Frame(picture()), StyleMix.parse(str(painting))).pixels
    assert made[0].shape == (1, 3, 32, 40)
    np.testing.assert_array_equal(result, painter._pixels(painter._resized(made[0], (80, 64))))
    assert optimiser.is_interrupted == (failure is KeyboardInterrupt)
    made.clear()
    fail_at = 0
    with pytest.raises(failure):
        engine(painting, replace(QUICK, steps=(4, 4))).stylize(Frame(picture()), StyleMix.parse(str(painting)))


def test_what_is_shown_on_the_way_keeps_colours_too(painting):
    shown = []
    optimiser = engine(painting, watch=lambda progress: shown.append(progress.picture()))
    mix = StyleMix.parse(str(painting), keep_colour=True)
    result = optimiser.stylize(Frame(picture()), mix).pixels
    np.testing.assert_array_equal(shown[-1], result)


def test_the_layers_that_a_network_has_are_used():
    """Without relu4_2 the content is relu4_1."""
    preset = replace(QUICK, half=False)
    network = SmallFeatures()
    layers = [name for name in LAYERS if name != "relu4_2"]
    photo = to_tensor(picture())
    objective = Objective(network, layers, preset, photo, [Region(style_statistics(network(photo, LAYERS)))])
    total, parts_ = objective(photo)
    assert float(total) == pytest.approx(0, abs=1e-6)
    assert parts_.content == parts_.style == pytest.approx(0, abs=1e-6)


def test_what_a_picture_cannot_show_costs():
    """The range weighs the squared distance to [0, 1]; inside it costs nothing."""
    network, photo = SmallFeatures(), to_tensor(picture())
    regions = [Region(style_statistics(network(photo, LAYERS)))]
    free, bound = (
        Objective(network, LAYERS, replace(QUICK, half=False, range_weight=weight), photo, regions)
        for weight in (0.0, 100.0)
    )
    assert float(bound(photo)[0]) == pytest.approx(float(free(photo)[0]))
    outside = photo.clone()
    outside[0, 0, 0, 0], outside[0, 1, 3, 4] = 1.5, -0.25
    costs = float(bound(outside)[0]) - float(free(outside)[0])
    assert costs == pytest.approx(100 * (0.5**2 + 0.25**2) / photo.numel(), rel=1e-3)
    assert PRESETS["good"].range_weight > 0
