import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videonst.errors import InputError
from videonst.styles import StyleMix

NAMES = ["starry_night", "great_wave", "the_scream"]


def test_single_name_is_one_hot():
    assert StyleMix.parse("great_wave").weights(NAMES).tolist() == [[0, 0, 1, 0]]


def test_shares_are_normalised_and_strength_goes_to_the_photo_slot():
    mix = StyleMix.parse(" starry_night:3 , great_wave:1 ", strength=0.5)
    np.testing.assert_allclose(mix.weights(NAMES), [[0.5, 0.375, 0.125, 0]])


def test_strength_above_one_extrapolates_away_from_the_photo():
    np.testing.assert_allclose(StyleMix.parse("the_scream", strength=1.5).weights(NAMES), [[-0.5, 0, 0, 1.5]])


@given(
    st.dictionaries(st.sampled_from(NAMES), st.floats(0.001, 1000), min_size=1),
    st.floats(0, 2),
)
def test_weights_always_sum_to_one(shares: dict[str, float], strength: float):
    text = ",".join(f"{n}:{s!r}" for n, s in shares.items())
    assert math.isclose(StyleMix.parse(text, strength=strength).weights(NAMES).sum(), 1, abs_tol=1e-5)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "cannot read ''"),
        ("a:b", "'a:b'"),
        ("a:", "'a:'"),
        ("a:-1", "'a:-1'"),
        ("a:nan", "'a:nan'"),
        ("a,,b", "cannot read ''"),
        ("a,a", "'a' is named twice"),
        ("a:0", "sum to 0"),
    ],
)
def test_bad_mixtures_name_what_is_wrong(text: str, wrong: str):
    with pytest.raises(InputError, match=r"^[^\n]+$") as error:
        StyleMix.parse(text)
    assert wrong in str(error.value)


def test_unknown_style_offers_the_nearest_names():
    with pytest.raises(InputError, match="unknown style 'stary_nite'; did you mean starry_night"):
        StyleMix.parse("stary_nite").weights(NAMES)


@pytest.mark.parametrize("strength", [-0.1, 2.1, math.nan])
def test_strength_out_of_range(strength: float):
    with pytest.raises(InputError, match="out of range"):
        StyleMix.parse("a", strength=strength)
