"""The settings that window, page and HTTP API share."""

import threading

import pytest

from videonst.errors import InputError
from videonst.live.controls import AUTO, Controls
from videonst.styles import StyleMix

STYLES = ("a", "b", "c")


def test_sliders_become_a_mixture():
    controls = Controls(STYLES, StyleMix.parse("b", strength=0.5, keep_colour=True))
    assert controls.read().shares == (("a", 0), ("b", 1), ("c", 0))
    assert controls.read().mix == StyleMix.parse("b", strength=0.5, keep_colour=True)
    controls.set_share("a", 0.25)
    assert controls.read().mix == StyleMix((("a", 0.2), ("b", 0.8)), 0.5, True)
    controls.change(shares={"c": 0.3}, strength=1.5, keep_colour=False)
    assert controls.read().mix == StyleMix((("c", 1.0),), 1.5)


def test_all_sliders_down_is_the_untouched_picture():
    controls = Controls(STYLES)
    assert controls.change(shares={}).mix.strength == 0
    assert controls.set_share("b", 0.1).mix == StyleMix((("b", 1.0),))


def test_stepping_goes_round_from_the_strongest_style():
    controls = Controls(STYLES, StyleMix.parse("a:0.2,b:0.8"))
    names = [controls.step_style(step).mix.shares[0][0] for step in (1, 1, 1, -1, -1)]
    assert names == ["c", "a", "b", "a", "c"]
    assert controls.read().shares == (("a", 0), ("b", 0), ("c", 1))


def test_a_refused_change_changes_nothing():
    controls = Controls(STYLES, models=("fast", "tiny"))
    before, revision = controls.read(), controls.revision
    for change, message in [
        ({"strength": 0.5, "steady": 2}, "steadiness is 2; expected 0 to 1"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"strength": True}, "strength is True"),
        ({"strength": "1"}, "expected a number"),
        ({"shares": {"a": 1, "zz": 1}}, "unknown style 'zz'"),
        ({"shares": {"a": 1.5}}, "the share of a is 1.5"),
        ({"model": "fats"}, "expected one of auto, fast, tiny"),
        ({"lines": 7}, "expected auto or 64 to 2160 lines"),
        ({"lines": "big"}, "expected auto or 64 to 2160 lines"),
    ]:
        with pytest.raises(InputError, match=message):
            controls.change(**{"keep_colour": True, **change})
    assert controls.read() == before
    assert controls.revision == revision


def test_pins_and_back_to_automatic():
    controls = Controls(STYLES, models=("fast", "tiny"), model="tiny", lines=288)
    assert (controls.read().model, controls.read().lines) == ("tiny", 288)
    assert controls.change(steady=0.1).lines == 288
    assert controls.change(lines=AUTO, model=AUTO).lines is None
    assert controls.change(lines=144).lines == 144
    assert controls.change(lines=None).lines is None


def test_every_change_counts_and_none_is_lost_between_threads():
    controls = Controls(STYLES)
    revision = controls.revision

    def turn(style: str) -> None:
        for step in range(200):
            controls.set_share(style, step / 199)

    threads = [threading.Thread(target=turn, args=(style,), daemon=True) for style in STYLES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert controls.revision == revision + 600
    assert controls.read().shares == tuple((style, 1.0) for style in STYLES)


def test_an_unknown_first_style_is_refused():
    with pytest.raises(InputError, match="unknown style 'd'"):
        Controls(STYLES, StyleMix.parse("d"))


def test_other_models_keep_the_sliders_that_they_know():
    controls = Controls(("a", "b"), StyleMix.parse("a:0.3,b:0.7"), model="fast", models=("fast", "tiny"))
    before = controls.revision
    settings = controls.adopt(("b", "new"), ("own.onnx",))
    assert controls.revision > before
    assert settings.shares == (("b", 0.7), ("new", 0.0))
    assert (settings.model, settings.strength) == ("auto", 1.0)
    assert controls.change(shares={"new": 1}, model="own.onnx").mix == StyleMix((("new", 1.0),))
