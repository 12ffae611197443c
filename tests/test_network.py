import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [train] extra")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from videonst.errors import InputError  # noqa: E402
from videonst.network import TIERS, StyleNetwork, widen  # noqa: E402
from videonst.network.model import normalise  # noqa: E402


def make(tier: str = "tiny", styles: int = 3) -> StyleNetwork:
    torch.manual_seed(0)
    network = StyleNetwork(tier, styles)
    torch.nn.init.normal_(network.bank, 0.5, 0.5)
    return network.eval()


def one_hot(*slots: int, of: int = 4) -> "torch.Tensor":
    return torch.eye(of)[list(slots)]


@pytest.mark.parametrize(
    ("tier", "millions", "per_style"),
    # Dumoulin et al. 2017 as counted in Magenta's code: 1.674 M weights, 3206 numbers a style.
    [("full", 1.66, 3078), ("fast", 0.41, 1542), ("tiny", 0.094, 614), ("reference", 1.674, 3206)],
)
def test_sizes_of_the_tiers(tier: str, millions: float, per_style: int):
    with torch.device("meta"):
        network = StyleNetwork(tier, 2)
    weights = sum(p.numel() for name, p in network.named_parameters() if name != "bank")
    assert round(weights / 1e6, 3) == pytest.approx(millions, rel=0.01)
    assert network.bank.shape == (3, per_style)


@settings(max_examples=25, deadline=None)
@given(st.integers(16, 70), st.integers(16, 70))
def test_any_size_comes_back(height: int, width: int):
    frame = torch.rand(1, 3, height, width)
    with torch.inference_mode():
        assert make()(frame, one_hot(1)).shape == frame.shape


@pytest.mark.parametrize("tier", TIERS)
def test_photo_slot_is_the_identity(tier: str):
    frame = torch.rand(1, 3, 37, 50)
    with torch.inference_mode():
        assert torch.equal(make(tier)(frame, one_hot(0)), frame)


def test_normalise_follows_the_paper():
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (2, 5, 7, 9))
    gamma, beta = rng.normal(size=(2, 2, 5))
    mean, var = x.mean((2, 3), keepdims=True), x.var((2, 3), keepdims=True)
    expected = gamma[:, :, None, None] * (x - mean) / np.sqrt(var + 1e-5) + beta[:, :, None, None]
    rows = (v[:, :, None, None] for v in (gamma, beta))
    found = normalise(*(torch.tensor(v, dtype=torch.float32) for v in (x, *rows)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_normalisation_is_conditional():
    """Changing one number of a style's row changes its pictures, whichever number it is, and no other style's."""
    network, frame = make(), torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        before = [network(frame, one_hot(slot)) for slot in (1, 2)]
        moved: set[int] = set()
        for index in range(0, network.bank.shape[1], 37):
            kept = network.bank[1, index].clone()
            for change in (10.0, -10.0):  # one of the two opens the ReLU behind it
                network.bank[1, index] = kept + change
                moved |= {index} if not torch.equal(network(frame, one_hot(1)), before[0]) else set()
                assert torch.equal(network(frame, one_hot(2)), before[1]), index
            network.bank[1, index] = kept
    assert moved == set(range(0, network.bank.shape[1], 37))


def test_batch_of_styles_equals_single_runs():
    network, frames = make(), torch.rand(3, 3, 32, 40)
    weights = torch.softmax(torch.randn(3, 4), 1)
    with torch.inference_mode():
        together = network(frames, weights)
        for i in range(3):
            torch.testing.assert_close(together[i : i + 1], network(frames[i : i + 1], weights[i : i + 1]))


def test_mixture_happens_inside_the_norm():
    """A mixture equals a network with one style whose row is the mixed row, not a blend of pictures."""
    network, frame = make(), torch.rand(1, 3, 32, 32)
    weights = torch.tensor([[0.0, 0.7, 0.3, 0.0]])
    with torch.inference_mode():
        mixed = network(frame, weights)
        blend = 0.7 * network(frame, one_hot(1)) + 0.3 * network(frame, one_hot(2))
        network.bank[3] = weights[0] @ network.bank
        torch.testing.assert_close(mixed, network(frame, one_hot(3)))
    assert (mixed - blend).abs().max() > 0.01


@pytest.mark.parametrize("tier", ["full", "fast", "tiny"])
def test_no_grid_by_construction(tier: str, portrait: np.ndarray):
    """All phases of the pixel lattice have the same mean and contrast before the sigmoid, whatever the weights."""
    frame = torch.from_numpy(portrait).permute(2, 0, 1)[None].float() / 255
    network = make(tier)
    torch.nn.init.normal_(network.head.weight)
    with torch.inference_mode():
        x = torch.logit(network(frame, one_hot(1))[0].double())
    phases = torch.stack([x[:, i::2, j::2].flatten(1) for i in range(2) for j in range(2)])
    for statistic in (phases.mean(2), phases.std(2)):
        assert (statistic - statistic.mean(0)).abs().max() < 1e-3


def test_widened_network_paints_the_same():
    network, frame = make("fast"), torch.rand(1, 3, 40, 56)
    grown = widen(network, "full").eval()
    assert grown.tier == "full"
    with torch.inference_mode():
        for slot in (1, 3):
            torch.testing.assert_close(grown(frame, one_hot(slot)), network(frame, one_hot(slot)), atol=1e-3, rtol=0)
        noisy = widen(network, "full", noise=0.1)
        copies = noisy.body[0].weight[:64], noisy.body[0].weight[64:]
        assert not torch.equal(*copies)  # or training could never tell them apart


def test_tiers_that_do_not_correspond_are_refused():
    for source, target in (("tiny", "fast"), ("full", "fast"), ("fast", "reference")):
        with pytest.raises(InputError, match=f"tier {source} cannot grow into tier {target}"):
            widen(make(source), target)
