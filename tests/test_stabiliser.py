"""The stabiliser: what it holds, what it lets go, and that nothing is left behind."""

import inspect
import json
import math
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from videonst.bench.scenes import synthetic_scene
from videonst.cli import convert, demo
from videonst.engines import EngineDescription
from videonst.engines.metadata import SizeRules, StyleInfo
from videonst.errors import InputError
from videonst.frame import Frame
from videonst.styles import StyleMix
from videonst.temporal import DEFAULT_STEADY, Stabiliser
from videonst.temporal.carry import HostCarry
from videonst.temporal.flow import PRESETS, DisFlow, in_full_pixels, trust
from videonst.temporal.scene import SceneCuts
from videonst.temporal.stabiliser import STATISTICS_DUE, STATISTICS_MEMORY, history_share, likeness

MIX = StyleMix.parse("a")
SIZE = (72, 96)


class BoilingEngine:
    """Paints the photograph, style a inverted and b as it is, with other noise on every call: the worst boiling."""

    description = EngineDescription(
        name="boiling", styles=(StyleInfo(name="a"), StyleInfo(name="b")), size=SizeRules(), device="cpu",
        precision="fp32",
    )  # fmt: skip

    def __init__(self, noise: float = 12) -> None:
        self.noise, self.calls = noise, 0
        self._rng = np.random.default_rng(0)

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        self.calls += 1
        _, a, b = mix.weights(["a", "b"])[0]
        noise = self._rng.normal(0, self.noise, frame.pixels.shape) if self.noise else 0
        painted = a * (255.0 - frame.pixels) + b * frame.pixels + (1 - a - b) * frame.pixels + noise
        return frame.with_pixels(np.clip(np.round(painted), 0, 255).astype(np.uint8))


def texture(height: int = 400, width: int = 400, seed: int = 0) -> np.ndarray:
    """Grain and blobs of 40 to 215 levels, mostly of one colour, RGB uint8."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (400, 400, 1)) + rng.normal(0, 0.5, (400, 400, 3))
    picture = sum(s * cv2.GaussianBlur(noise, (0, 0), s) for s in (1.5, 4, 10))
    return cv2.normalize(picture, None, 40, 215, cv2.NORM_MINMAX).astype(np.uint8)[:height, :width].copy()


def pan(count: int, step: tuple[int, int] = (3, 1)) -> list[Frame]:
    """A view of `texture` that moves by `step` pixels (x, y) a frame."""
    scene = texture()
    height, width = SIZE
    return [
        at(index, np.ascontiguousarray(scene[y : y + height, x : x + width]))
        for index in range(count)
        for x, y in [(20 + index * step[0], 20 + index * step[1])]
    ]


def slow_pan(count: int, speed: float) -> list[Frame]:
    """The same view, smooth, moving to the right by a fraction of a pixel a frame."""
    scene, (height, width) = cv2.GaussianBlur(texture(), (0, 0), 1), SIZE
    views = [np.float32([[1, 0, 20 + speed * index], [0, 1, 20]]) for index in range(count)]
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return [at(index, cv2.warpAffine(scene, view, (width, height), flags=how)) for index, view in enumerate(views)]


def at(index: int, pixels: np.ndarray) -> Frame:
    return Frame(pixels, pts=index, time_base=Fraction(1, 25))


def noisy(picture: np.ndarray, seed: int, sigma: float = 2) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(np.round(picture + noise), 0, 255).astype(np.uint8)


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def test_knob_at_zero_is_the_engine_alone_bit_for_bit():
    frames = pan(4)
    steady, plain = Stabiliser(BoilingEngine(), steady=0), BoilingEngine()
    for frame in frames:
        assert np.array_equal(steady.stylize(frame, MIX).pixels, plain.stylize(frame, MIX).pixels)


def test_strength_zero_gives_the_photographs_back():
    steady = Stabiliser(BoilingEngine(noise=0))
    for frame in pan(3):
        assert np.array_equal(steady.stylize(frame, MIX.with_strength(0)).pixels, frame.pixels)


def flicker(outputs: list[np.ndarray]) -> float:
    return float(np.abs(np.diff(np.stack(outputs).astype(float), axis=0)).mean())


def test_a_still_scene_with_camera_noise_keeps_still():
    """With a share w of the history, differences of successive outputs shrink to (1 - w) sqrt(1 / (1 + w)) = 4 %."""
    picture = texture(*SIZE)
    steady, plain = Stabiliser(BoilingEngine()), BoilingEngine()
    frames = [at(i, noisy(picture, i)) for i in range(24)]
    held = [steady.stylize(f, MIX).pixels for f in frames][12:]
    loose = [plain.stylize(f, MIX).pixels for f in frames][12:]
    assert flicker(held) < 0.15 * flicker(loose)
    assert mean_difference(held[-1], 255 - picture) < mean_difference(loose[-1], 255 - picture)


def test_the_history_moves_with_the_picture():
    """On a pan, the error against the truth shrinks as on a still scene, which only the right warp gives."""
    steady = Stabiliser(BoilingEngine(), flow=DisFlow("medium"))
    frames = pan(14)
    outputs = [steady.stylize(f, MIX).pixels for f in frames]
    middle = np.s_[12:-12, 24:-24]
    errors = [mean_difference(o[middle], 255 - f.pixels[middle]) for o, f in zip(outputs, frames, strict=True)]
    assert errors[-1] < 0.6 * errors[0]


@pytest.mark.parametrize("speed", [0.1, 0.2])
def test_a_history_does_not_fall_behind_a_slow_pan(speed: float):
    """Motion too small to be carried out in one frame adds up. A history that stays behind is off by what a shift by
    more than a pixel makes, and blurred; cubic sampling leaves less at 0.2."""
    steady = Stabiliser(BoilingEngine(noise=0))
    for frame in slow_pan(40, speed):
        shown = steady.stylize(frame, MIX).pixels
    middle = np.s_[12:-12, 24:-24]
    a_pixel = np.roll(frame.pixels, 1, axis=1)
    off = mean_difference(shown[middle], 255 - frame.pixels[middle])
    assert off < 0.9 * mean_difference(a_pixel[middle], frame.pixels[middle])


def test_nothing_ghosts_behind_a_moving_object():
    """Where a bright square was a moment ago, the painting of the background is back at once."""
    background = texture(*SIZE) // 4 + 20
    steady = Stabiliser(BoilingEngine(noise=0))
    for index in range(10):
        left = 6 + 6 * index
        picture = background.copy()
        picture[24:48, left : left + 24] = 230
        shown = steady.stylize(at(index, picture), MIX).pixels
        left_behind = np.abs(shown.astype(int) - (255 - picture))[24:48, max(left - 12, 0) : left]
        assert left_behind.mean() < 0.05 * 150
        assert left_behind.max() < 0.25 * 150  # of the contrast between square and background


def test_a_static_scene_neither_drifts_nor_darkens():
    picture = texture(32, 48)
    steady = Stabiliser(BoilingEngine(noise=6))
    first = last = 0.0
    for index in range(600):
        shown = steady.stylize(at(index, noisy(picture, index % 50)), MIX).pixels
        first, last = first or shown.mean(), shown.mean()
    assert abs(last - first) < 1
    assert mean_difference(shown, 255 - picture) < 3


def test_a_scene_cut_shows_the_new_scene_as_painted():
    engine = BoilingEngine(noise=0)
    steady = Stabiliser(engine)
    for frame in pan(5):
        steady.stylize(frame, MIX)
    other = at(5, 255 - texture(*SIZE, seed=9) // 2)
    assert np.array_equal(steady.stylize(other, MIX).pixels, engine.stylize(other, MIX).pixels)


def test_cuts_are_told_from_motion_and_noise():
    def grey(pixels: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)

    cuts = SceneCuts()
    moving = [cuts.is_cut(grey(f.pixels)) for f in pan(8, step=(9, 4))]
    assert not any(moving)
    assert cuts.is_cut(grey(255 - texture(*SIZE) // 2))
    assert not cuts.is_cut(grey(255 - noisy(texture(*SIZE) // 2, 0)))
    dark = SceneCuts()
    assert not any(dark.is_cut(grey(noisy(np.full((*SIZE, 3), 4, np.uint8), i, sigma=6))) for i in range(5))


@pytest.mark.parametrize(
    "next_frame",
    [
        pytest.param(lambda f: Frame(f.pixels, pts=0, time_base=f.time_base), id="time runs backwards"),
        pytest.param(lambda f: Frame(f.pixels, pts=200, time_base=f.time_base), id="seeking, or a camera stopped"),
        pytest.param(lambda f: Frame(f.pixels[8:].copy(), pts=6, time_base=f.time_base), id="another size"),
    ],
)
def test_what_has_no_past_is_painted_on_its_own(next_frame):
    steady, twin = Stabiliser(BoilingEngine()), BoilingEngine()
    frames = pan(6)
    for frame in frames:
        steady.stylize(frame, MIX), twin.stylize(frame, MIX)
    following = next_frame(frames[-1])
    assert np.array_equal(steady.stylize(following, MIX).pixels, twin.stylize(following, MIX).pixels)
    assert steady.last_painted


def test_dropped_and_late_frames_keep_the_past():
    """Two frames missing: the motion is three times as far, and the history still arrives."""
    steady = Stabiliser(BoilingEngine())
    frames = [f for i, f in enumerate(pan(16)) if i not in (9, 10)]
    outputs = [steady.stylize(f, MIX).pixels for f in frames]
    middle = np.s_[12:-12, 24:-24]
    after = mean_difference(outputs[9][middle], 255 - frames[9].pixels[middle])
    assert after < 0.7 * mean_difference(outputs[0][middle], 255 - frames[0].pixels[middle])


def test_equal_frames_are_not_painted_again_but_settle():
    engine = BoilingEngine()
    steady = Stabiliser(engine)
    picture = texture(*SIZE)
    steady.stylize(at(0, noisy(picture, 0)), MIX)
    steady.stylize(at(1, picture), MIX)
    assert (engine.calls, steady.last_painted) == (2, True)
    shown = [steady.stylize(at(2 + i, picture), MIX) for i in range(100)]
    assert (engine.calls, steady.last_painted) == (2, False)
    assert [f.pts for f in shown] == list(range(2, 102))
    assert np.array_equal(shown[-1].pixels, shown[-2].pixels)
    steady.stylize(at(102, picture), StyleMix.parse("b"))
    assert (engine.calls, steady.last_painted) == (3, True)
    steady.stylize(at(103, noisy(picture, 1)), StyleMix.parse("b"))
    assert (engine.calls, steady.last_painted) == (4, True)


def test_without_steadying_a_repeated_frame_is_the_same_painting_and_costs_nothing():
    engine = BoilingEngine()
    steady = Stabiliser(engine, steady=0)
    picture = texture(*SIZE)
    first = steady.stylize(at(0, picture), MIX)
    again = steady.stylize(at(1, picture.copy()), MIX)
    assert (engine.calls, steady.last_painted, again.pts) == (1, False, 1)
    assert np.array_equal(again.pixels, first.pixels)
    other = picture.copy()
    other[-1, -1, 2] ^= 1  # one bit of one pixel
    assert not np.array_equal(steady.stylize(at(2, other), MIX).pixels, first.pixels)
    assert (engine.calls, steady.last_painted) == (2, True)
    steady.stylize(at(3, other), StyleMix.parse("b"))
    assert engine.calls == 3
    steady.engine = BoilingEngine()
    steady.stylize(at(4, other), StyleMix.parse("b"))
    assert steady.engine.calls == 1
    steady.steady = DEFAULT_STEADY  # the painting is not carried into the steadied pictures
    steady.stylize(at(5, other), StyleMix.parse("b"))
    assert (steady.engine.calls, steady.last_painted) == (2, True)


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_frames(level):
    steady = Stabiliser(BoilingEngine(noise=0))
    for index in range(3):
        flat = at(index, noisy(np.full((*SIZE, 3), level, np.uint8), index, sigma=1))
        assert mean_difference(steady.stylize(flat, MIX).pixels, 255 - flat.pixels) < 2
    frame = at(3, texture(*SIZE))
    assert np.array_equal(steady.stylize(frame, MIX).pixels, 255 - frame.pixels)


def test_a_fade_is_followed():
    picture = texture(*SIZE)
    steady = Stabiliser(BoilingEngine(noise=0))
    for index in range(25):
        frame = at(index, np.round(picture * (1 - index / 25)).astype(np.uint8))
        shown = steady.stylize(frame, MIX).pixels
        assert abs(shown.mean() - (255 - frame.pixels).mean()) < 6


def test_a_gliding_mixture_is_not_smeared():
    """What is shown stays within a few steps of the mixture asked for; a plain average over 16 frames lags by 15."""
    picture = texture(*SIZE)
    steady = Stabiliser(BoilingEngine(noise=0))
    for index in range(41):
        share = index / 40
        frame = at(index, noisy(picture, index, sigma=1))
        shown = steady.stylize(frame, StyleMix((("a", 1 - share), ("b", share)) if 0 < share < 1 else
                                               (("b" if share else "a", 1.0),))).pixels  # fmt: skip
    lag = mean_difference(shown, picture) / mean_difference(255 - picture, picture)
    assert lag < 4 / 40
    for index in range(41, 60):
        shown = steady.stylize(at(index, noisy(picture, index, sigma=1)), StyleMix.parse("b")).pixels
    assert mean_difference(shown, picture) < 2


def test_keeping_colour_starts_anew():
    steady, twin = Stabiliser(BoilingEngine()), BoilingEngine()
    kept = StyleMix.parse("a", keep_colour=True)
    frames = pan(3)
    for frame in frames[:2]:
        steady.stylize(frame, MIX), twin.stylize(frame, MIX)
    assert np.array_equal(steady.stylize(frames[2], kept).pixels, twin.stylize(frames[2], kept).pixels)


class HoldingEngine(BoilingEngine):
    """Remembers what it was asked to hold; its statistics count the frames."""

    def __init__(self) -> None:
        super().__init__(noise=0)
        self.asked: list[tuple[float | None, float]] = []

    def stylize_holding(self, frame, mix, statistics, hold):
        self.asked.append((None if statistics is None else float(statistics[0, 0]), hold))
        return self.stylize(frame, mix), np.full((1, 1), self.calls, np.float32)


def test_statistics_are_held_over_a_shot():
    """Until a cut, another engine or the knob at 0; less where the exposure changes."""
    engine, picture = HoldingEngine(), texture(*SIZE)
    steady = Stabiliser(engine)
    for index in range(3):
        steady.stylize(at(index, noisy(picture, index)), MIX)
    assert engine.asked == [(None, 0), (1, 1), (1, 1)]
    steady.stylize(at(3, noisy(picture, 3) + 10), MIX)
    assert engine.asked[3][1] < 0.1
    steady.stylize(at(4, 255 - noisy(picture, 4) // 2), MIX)
    assert engine.asked[4][0] is None
    steady.engine = HoldingEngine()
    steady.stylize(at(5, 255 - noisy(picture, 5) // 2), MIX)
    assert steady.engine.asked[0][0] is None
    assert float(steady.state()["statistics"][0, 0]) == 1


def test_statistics_are_taken_in_now_and_then():
    """Entirely held in between; what the frame's own count when they do is what they would have in all those frames."""
    engine, frames = HoldingEngine(), [at(i, texture(*SIZE)) for i in range(40)]
    for i, frame in enumerate(frames):
        frame.pixels[0, 0] = i  # not the very same frame
    steady = Stabiliser(engine)
    for frame in frames:
        steady.stylize(frame, MIX)
    held = 1 - (1 - DEFAULT_STEADY) ** 2 / STATISTICS_MEMORY
    waited = math.ceil(math.log(STATISTICS_DUE, held))
    assert waited > 3
    taken = [(i, hold) for i, (_, hold) in enumerate(engine.asked) if hold != 1]
    assert [i for i, _ in taken] == list(range(0, len(frames), waited))
    assert [hold for _, hold in taken[1:]] == pytest.approx([held**waited] * (len(taken) - 1), rel=1e-3)


def test_statistics_that_are_due_are_remembered():
    """A run that goes on from a state asks for what the whole run asks for."""
    frames = [at(i, noisy(texture(*SIZE), i)) for i in range(18)]
    for cut in (5, 12):
        whole, first, second = HoldingEngine(), HoldingEngine(), HoldingEngine()
        for engine, part in ((whole, frames), (first, frames[:cut])):
            steady = Stabiliser(engine)
            for frame in part:
                steady.stylize(frame, MIX)
        state = steady.state()
        onwards = Stabiliser(second)
        onwards.restore(state)
        for frame in frames[cut:]:
            onwards.stylize(frame, MIX)
        holds = [hold for _, hold in whole.asked]
        assert [hold for _, hold in first.asked + second.asked] == holds
        assert 1 in holds
        assert any(0 < hold < 1 for hold in holds)


def test_statistics_are_not_held_over_a_cut_that_was_missed():
    """Right after the first frame, where only a large difference counts as one: nothing can be trusted, and the frame
    after begins anew."""
    engine = HoldingEngine()
    steady = Stabiliser(engine)
    for index, seed in enumerate((0, 9, 9, 9)):
        steady.stylize(at(index, noisy(texture(*SIZE, seed=seed), index)), MIX)
    assert [statistics for statistics, _ in engine.asked] == [None, 1, None, 3]


@pytest.mark.parametrize("frames", [pan(8), slow_pan(8, 0.2)], ids=["pan", "slow pan"])
def test_going_on_from_a_state_gives_the_same_frames(frames: list[Frame]):
    cut = 5
    whole, first = Stabiliser(BoilingEngine(noise=0)), Stabiliser(BoilingEngine(noise=0))
    expected = [whole.stylize(f, MIX).pixels for f in frames][cut:]
    for frame in frames[:cut]:
        first.stylize(frame, MIX)
    state = first.state()
    arrays = {k: v.tobytes() for k, v in state.items() if isinstance(v, np.ndarray)}
    kept = json.loads(json.dumps({k: v for k, v in state.items() if k not in arrays}))
    kept |= {k: np.frombuffer(b, state[k].dtype).reshape(state[k].shape) for k, b in arrays.items()}
    second = Stabiliser(BoilingEngine(noise=0))
    second.restore(kept)
    for frame, pixels in zip(frames[cut:], expected, strict=True):
        assert np.array_equal(second.stylize(frame, MIX).pixels, pixels)


def test_state_without_a_past_is_empty():
    steady = Stabiliser(BoilingEngine())
    assert steady.state() == {}
    steady.stylize(pan(1)[0], MIX)
    assert steady.state()
    steady.restore({})
    assert steady.state() == {}


class FailingFlow(DisFlow):
    def flow(self, first, second):
        raise RuntimeError("no flow")


def test_the_way_there_may_be_searched_roughly():
    """A provider with a rough search is asked for the exact way back alone; one without is asked for both."""
    asked = []

    class Exact:
        name = "exact"
        prepare = staticmethod(DisFlow().prepare)

        def flow(self, first, second):
            asked.append("exact")
            return np.zeros((*first.shape, 2), np.float32)

    class Rough(Exact):
        def rough(self, first, second):
            asked.append("rough")
            return np.zeros((*first.shape, 2), np.float32)

    for flow, expected in ((Exact(), ["exact", "exact"]), (Rough(), ["exact", "rough"])):
        asked.clear()
        steady = Stabiliser(BoilingEngine(), flow=flow)
        for frame in pan(2):
            steady.stylize(frame, MIX)
        assert asked == expected


def test_errors_of_either_thread_arrive():
    steady = Stabiliser(BoilingEngine(), flow=FailingFlow())
    frames = pan(2)
    steady.stylize(frames[0], MIX)
    with pytest.raises(RuntimeError, match="no flow"):
        steady.stylize(frames[1], MIX)
    steady = Stabiliser(BoilingEngine())
    steady.stylize(frames[0], MIX)
    with pytest.raises(InputError, match="unknown style 'c'"):
        steady.stylize(frames[1], StyleMix.parse("c"))


def test_after_an_error_the_next_frame_is_painted_on_its_own():
    frames, flow = pan(6), DisFlow()
    for going, seekers in (
        (lambda steady, frame: [steady.stylize(frame, MIX)], 1),
        (lambda steady, frame: steady.take(frame, MIX), 1),
        (lambda steady, frame: steady.take(frame, MIX), 2),
    ):
        steady = Stabiliser(BoilingEngine(noise=0), flow=flow, seekers=seekers)
        engine = BoilingEngine(noise=0)
        going(steady, frames[0])
        flow.flow = lambda first, second: 1 / 0
        with pytest.raises(ZeroDivisionError):
            [going(steady, frame) for frame in frames[1 : 2 + seekers]]
        del flow.flow
        [alone] = [*going(steady, frames[3]), *steady.finish()]
        assert alone.pts == 3
        assert np.array_equal(alone.pixels, engine.stylize(frames[3], MIX).pixels)
        assert len([*going(steady, frames[4]), *steady.finish()]) == 1


class MeanEngine(BoilingEngine):
    """Paints a frame always alike, with the statistics of the mean; what it was asked for by moment."""

    def __init__(self) -> None:
        super().__init__(noise=0)
        self.asked: dict[Fraction, tuple[bool, float]] = {}

    def stylize_holding(self, frame, mix, statistics, hold):
        self.asked[frame.time] = statistics is None, hold
        own = np.full((1, 1), frame.pixels.mean(), np.float32)
        used = own if statistics is None else own + np.float32(hold) * (statistics - own)
        noise = np.random.default_rng(frame.pts).normal(0, 12, frame.pixels.shape)
        painted = self.stylize(frame, mix).pixels * (used / own) + noise
        return frame.with_pixels(np.clip(np.round(painted), 0, 255).astype(np.uint8)), used


@pytest.mark.parametrize(("painters", "seekers"), [(1, 1), (2, 1), (3, 1), (1, 3), (2, 4)])
def test_frames_that_are_taken_ahead_are_the_same(painters, seekers):
    """Moving, repeated, with another mixture, at the knob's 0 and the strength's, after a cut, at another size,
    statistics due: each in its turn, and no more on the way than are painted and looked at at once."""
    moving, other = pan(24), texture(seed=9)[:72, :96]
    cut = [at(24 + i, 255 - noisy(other, i) // 2) for i in range(3)]
    small = [at(29 + i, np.ascontiguousarray(frame.pixels[:48])) for i, frame in enumerate(pan(3))]
    clip = [(frame, MIX, 0.75) for frame in [*moving, *cut]]
    clip[13:13] = [(at(0, moving[12].pixels), mix, 0.75) for mix in (MIX, *[StyleMix.parse("a:0.9, b:0.1")] * 2, MIX)]
    clip += [(at(27, cut[-1].pixels), MIX, 0.75), (at(28, moving[0].pixels), MIX.with_strength(0), 0.75)]
    clip += [(frame, MIX, steady) for frame, steady in zip(small, (0.75, 0, 0.5), strict=True)]
    clip = [(replace(frame, pts=index), mix, steady) for index, (frame, mix, steady) in enumerate(clip)]
    one, ahead = Stabiliser(MeanEngine()), Stabiliser(MeanEngine(), painters=painters, seekers=seekers)
    expected, found = [], []
    for count, (frame, mix, steady) in enumerate(clip, 1):
        one.steady = ahead.steady = steady
        expected.append(one.stylize(frame, mix))
        found += ahead.take(frame, mix)
        assert len(found) == max(count - painters - seekers + 1, 0)
        assert ahead.last_painted == one.last_painted or seekers > 1
    state = ahead.state()
    found += ahead.finish()
    assert ahead.finish() == []
    assert one.engine.asked == ahead.engine.asked
    assert any(0 < hold < 1 for _, hold in one.engine.asked.values())
    assert [frame.pts for frame in found] == [frame.pts for frame in expected] == list(range(len(clip)))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)
    for key, value in one.state().items():
        np.testing.assert_array_equal(state[key], value)


def test_frames_are_painted_side_by_side():
    both = threading.Barrier(2)

    class Meeting(BoilingEngine):
        def stylize(self, frame, mix):
            both.wait(timeout=30)
            return super().stylize(frame, mix)

    steady = Stabiliser(Meeting(noise=0), painters=2)
    given = [*(frame for taken in pan(4) for frame in steady.take(taken, MIX)), *steady.finish()]
    assert [frame.pts for frame in given] == [0, 1, 2, 3]


def test_motion_is_sought_ahead_of_painting():
    """Three pairs of frames at once, by a provider each, before the first of them is painted."""
    all_of_them = threading.Barrier(3)

    class Meeting(DisFlow):
        def twin(self):
            return Meeting(self.preset, self.side)

        def flow(self, first, second):
            all_of_them.wait(timeout=30)
            return super().flow(first, second)

    steady, engine = Stabiliser(BoilingEngine(noise=0), flow=Meeting(), seekers=3), Stabiliser(BoilingEngine(noise=0))
    frames = pan(7)
    given = [*(frame for taken in frames for frame in steady.take(taken, MIX)), *steady.finish()]
    for frame, found in zip(frames, given, strict=True):
        np.testing.assert_array_equal(found.pixels, engine.stylize(frame, MIX).pixels)


def test_a_provider_that_is_alone_is_asked_for_one_pair_at_a_time():
    busy = threading.Lock()

    class Alone:
        name = "alone"

        def __init__(self):
            self.prepare = DisFlow().prepare

        def flow(self, first, second):
            assert busy.acquire(blocking=False)
            try:
                return DisFlow().flow(first, second)
            finally:
                busy.release()

    steady = Stabiliser(BoilingEngine(noise=0), flow=Alone(), seekers=4)
    given = [len(steady.take(frame, MIX)) for frame in pan(4)]
    assert given == [0, 1, 1, 1]
    assert len(steady.finish()) == 1


def test_a_frame_is_mixed_while_the_next_one_is_painted(monkeypatch):
    painting = threading.Event()

    class Watched(BoilingEngine):
        def stylize(self, frame, mix):
            if self.calls == 2:
                painting.set()
            return super().stylize(frame, mix)

    def merge(self, *given):
        if not mixed:
            mixed.append(painting.wait(timeout=30))
        return original(self, *given)

    mixed: list[bool] = []
    original = HostCarry.merge
    monkeypatch.setattr(HostCarry, "merge", merge)
    steady = Stabiliser(Watched())
    given = [len(steady.take(frame, MIX)) for frame in pan(3)]
    assert given == [0, 1, 1]
    assert mixed == [True]
    assert len(steady.finish()) == 1


def test_ctrl_c_while_a_thread_starts_does_not_keep_the_program():
    """Its pool does not know of that thread yet, so only `Stabiliser` can tell it that there is no more work."""
    program = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from test_stabiliser import MIX, BoilingEngine, Stabiliser, pan
start, wanted = threading.Thread.start, sys.argv[2]
def interrupted(thread):
    start(thread)
    if thread.name.startswith(wanted):
        raise KeyboardInterrupt
threading.Thread.start = interrupted
steady = Stabiliser(BoilingEngine(), painters=2)
try:
    for frame in pan(4):
        steady.take(frame, MIX)
except KeyboardInterrupt:
    print("interrupted")
"""
    for thread in ("videonst-flow", "videonst-history", "videonst-paint"):
        command = [sys.executable, "-c", program, str(Path(__file__).parent), thread]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_knob_out_of_range():
    steady = Stabiliser(BoilingEngine())
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"expected 0 .* to 1"):
            steady.steady = value
    assert steady.steady == DEFAULT_STEADY
    assert [history_share(s) for s in (0, 0.5, 1)] == [0, 0.75, 0.98]


def test_likeness_of_mixtures():
    a, b = np.float32([[0, 1, 0]]), np.float32([[0, 0, 1]])
    assert likeness(a, a) == 1
    assert likeness(a, b) == 0
    assert likeness(a, 0.9 * a + 0.1 * b) == pytest.approx(0.6)


@pytest.mark.parametrize("preset", PRESETS)
def test_flow_finds_a_known_shift(preset):
    first, second = (f.pixels for f in pan(2))
    dis = DisFlow(preset)
    flow = dis.flow(dis.prepare(first), dis.prepare(second))
    assert np.median(flow.reshape(-1, 2), axis=0) == pytest.approx([-3, -1], abs=0.1)


@pytest.mark.parametrize("preset", PRESETS)
def test_flow_ends_where_what_moves_ends(preset):
    """A disc that goes by in front of a panning ground, at the size of a camera's picture. OpenCV's own quick presets,
    with 45 rows of flow, are wrong by more than 2 pixels on 15 % of it."""
    scene = synthetic_scene(2, height=360, width=640)
    ((first, second), truth), dis = next(iter(scene.motions.items())), DisFlow(preset)
    found = dis.flow(dis.prepare(scene.frames[first]), dis.prepare(scene.frames[second]))
    full = cv2.resize(in_full_pixels(found, 640, 360), (640, 360))
    wrong = np.linalg.norm(full - truth.flow, axis=2) > 2
    assert wrong[truth.valid].mean() < 0.11


def test_flow_works_at_reduced_size_and_on_tiny_frames():
    assert DisFlow("fast", side=36).prepare(texture(72, 96)).shape == (36, 48)
    assert DisFlow("fast", side=36).prepare(texture(96, 72)).shape == (48, 36)
    dis = DisFlow()
    for size in [(16, 16), (12, 40), (16, 300), (31, 33)]:
        grey = dis.prepare(texture(*size))
        assert dis.flow(grey, grey).shape == (*size, 2)
    with pytest.raises(InputError, match="unknown flow 'best'; expected ultrafast, fast, medium or"):
        DisFlow("best")


@pytest.mark.parametrize("size", [(800, 1200), (1081, 1921)])
def test_large_frames_are_shrunk_as_by_their_area(size):
    """By way of halves, odd sides too: neither shifted nor shaded."""
    smooth = cv2.resize(cv2.GaussianBlur(texture(), (0, 0), 3), size[::-1], interpolation=cv2.INTER_CUBIC)
    grey = DisFlow("fast").prepare(smooth)
    whole = cv2.resize(cv2.cvtColor(smooth, cv2.COLOR_RGB2GRAY), grey.shape[::-1], interpolation=cv2.INTER_AREA)
    a_quarter = cv2.warpAffine(whole, np.float32([[1, 0, 0.25], [0, 1, 0]]), grey.shape[::-1])
    assert mean_difference(grey, whole) < 0.5 < mean_difference(a_quarter, whole)


def test_trust_goes_where_the_picture_was_covered():
    """A square moves over a background that stands still: what it uncovers was not visible before."""
    background = texture(*SIZE)
    square = texture(seed=3)[:30, :30]
    pictures = []
    for x in (20, 29):
        picture = background.copy()
        picture[20:50, x : x + 30] = square
        pictures.append(picture)
    dis = DisFlow("medium")
    first, second = map(dis.prepare, pictures)
    trusted, _ = trust(first, second, dis.flow(first, second), dis.flow(second, first), 1.0)
    assert trusted[22:48, 21:28].mean() < 0.2
    assert trusted[:, 70:].mean() > 0.95
    assert trusted[25:45, 35:55].mean() > 0.8


def test_the_command_line_has_the_same_default():
    for verb in (convert, demo):
        assert inspect.signature(verb.command).parameters["steady"].default == DEFAULT_STEADY
