"""The optimise engine on film: frames that follow the motion, and what a resumed film is."""

import contextlib
import itertools
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from clips import make_clip

torch = pytest.importorskip("torch", reason="needs the [train] extra")

from optimising import QUICK, SmallFeatures, engine, picture, write_painting  # noqa: E402

from videonst.api import Stylizer, convert  # noqa: E402
from videonst.errors import InputError, VideoNSTError  # noqa: E402
from videonst.frame import Frame  # noqa: E402
from videonst.optimise import OptimiseEngine, starts  # noqa: E402
from videonst.optimise.film import Film, Painted  # noqa: E402
from videonst.sinks import parts  # noqa: E402
from videonst.sources import open_source  # noqa: E402
from videonst.styles import StyleMix  # noqa: E402
from videonst.temporal.carry import HostCarry, Way  # noqa: E402
from videonst.temporal.flow import DisFlow  # noqa: E402
from videonst.temporal.lookout import Lookout  # noqa: E402


@pytest.fixture
def painting(tmp_path):
    return write_painting(tmp_path / "painting.png")


def pan(count=6, step=4, height=64, width=80):
    """A picture that moves by whole pixels, so that the motion is known."""
    large = picture(5, height, width + 8 * count)
    return [np.ascontiguousarray(large[:, step * i : step * i + width]) for i in range(count)]


def film(frames, painting, preset, **options):
    optimiser = engine(painting, preset, **options)
    clip = optimiser.clip(DisFlow("medium"))
    mix = StyleMix.parse(str(painting))
    results = []
    for index, pixels in enumerate(frames):
        results += clip.take(Frame(pixels, pts=index, time_base=Fraction(1, 25)), mix)
    return [frame.pixels for frame in results + clip.finish()]


def trembling(results, step=4):
    """Mean difference of what the same place of the scene looks like in successive frames, levels."""
    inner = [result[:, 8:-8].astype(int) for result in results]
    return np.mean([np.abs(b[:, :-step] - a[:, step:]).mean() for a, b in itertools.pairwise(inner)])


@pytest.mark.parametrize("passes", [1, 3])
def test_strokes_travel_with_the_picture(painting, passes):
    frames = pan(5)
    preset = replace(QUICK, start="noise", steps=(15,), next_steps=(6,), lags=(1, 2), passes=passes, window=4)
    steady = film(frames, painting, preset)
    optimiser, mix = engine(painting, preset), StyleMix.parse(str(painting))
    alone = [
        optimiser.stylize(Frame(pixels, pts=i, time_base=Fraction(1, 25)), mix).pixels
        for i, pixels in enumerate(frames)
    ]
    assert len(steady) == len(frames)
    assert trembling(steady) < 0.4 * trembling(alone)


def test_a_flow_of_other_proportions_moves_pictures_as_far():
    """As that of a network whose file fixes its size."""
    before, now = pan(2)

    class Squeezed:
        name = "squeezed"

        def prepare(self, pixels):
            return cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (40, 64), interpolation=cv2.INTER_AREA)

        def flow(self, first, second):
            to_the_left = np.array_equal(second, self.prepare(now))
            return np.full((64, 40, 2), (-2 if to_the_left else 2, 0), np.float32)

    provider = Squeezed()
    past, grey = Painted(Frame(before), provider.prepare(before), before), provider.prepare(now)
    moved, _ = Film._carried(SimpleNamespace(_flow=provider), past, grey, Frame(now))
    assert np.abs(moved.astype(int) - now)[:, 8:-12].max() <= 1
    lookout = Lookout(provider, seekers=1)
    _, seen = (lookout.look(Frame(pixels, pts=pts), keep_colour=False) for pts, pixels in enumerate((before, now)))
    found = seen.motion.result(timeout=60)
    history = HostCarry().move(before.astype(np.float32), Way(found.field, found.trust, 0))
    assert np.abs(history - now)[:, 8:-12].max() <= 1


@pytest.mark.parametrize(("before", "passes"), [(1, 1), (3, 1), (1, 3), (3, 3)])
def test_a_cut_starts_afresh(painting, before, passes):
    """Also right after the first frame."""
    preset = replace(QUICK, passes=passes, window=4)
    moving = pan(3)
    frames, other = ([pixels // 4 + shade for pixels in moving] for shade in (0, 190))
    after_cut = film(frames[:before] + other, painting, preset)[before:]
    for found, expected in zip(after_cut, film(other, painting, preset), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("hidden", "expected"), [(0.0, 4), (0.25, 9), (0.75, 19), (1.0, 20)])
def test_what_is_hidden_is_painted_with_more_steps(painting, monkeypatch, hidden, expected):
    """The share that no frame before shows, of the steps of a first frame, on top; never more than that has."""

    def carried(self, past, grey, frame):
        seen = np.ones((64, 80), np.float32)
        seen[: round(64 * hidden)] = 0
        return past.result, seen

    monkeypatch.setattr(Film, "_carried", carried)
    counts = []
    preset = replace(QUICK, steps=(8, 12), next_steps=(4,), lags=(1, 2))
    film(pan(3), painting, preset, watch=lambda progress: counts.append((progress.step, progress.steps)))
    assert [steps for step, steps in counts if step == 1] == [20, expected, expected]


def test_a_frame_starts_from_the_nearest_that_shows_it(painting, monkeypatch):
    """Three stripes: shown by the frame before, by the one before that, and hidden in both."""
    levels = {1: 50, 2: 100}

    def carried(self, past, grey, frame):
        lag = round((frame.time - past.frame.time) * 25)
        seen = np.zeros((64, 80), np.float32)
        seen[: 20 * lag] = 1
        return np.full((64, 80, 3), levels[lag], np.uint8), seen

    monkeypatch.setattr(Film, "_carried", carried)
    optimiser = engine(painting, replace(QUICK, lags=(1, 2)))
    begun, original = [], optimiser._painter.paint

    def paint(photo, mix, beginning, **options):
        begun.append((beginning, options.get("held", ())))
        return original(photo, mix, beginning, **options)

    optimiser._painter.paint = paint
    clip, mix = optimiser.clip(DisFlow("medium")), StyleMix.parse(str(painting))
    frames = pan(3)
    for index, pixels in enumerate(frames):
        clip.take(Frame(pixels, pts=index, time_base=Fraction(1, 25)), mix)
    beginning, held = begun[2]
    expected = frames[2].copy()
    expected[20:40], expected[:20] = 100, 50
    np.testing.assert_array_equal(beginning, expected)
    for (_, weight), stripe in zip(held, (slice(0, 20), slice(20, 40)), strict=True):
        assert weight[stripe].min() == 1
        assert weight.sum() == weight[stripe].sum()


def test_what_changed_since_is_named(tmp_path, painting):
    """Where a film is to be resumed with other options."""
    source = make_clip(tmp_path / "clip.mp4", pts=range(0, 300, 100), last_duration=100)

    def run(resume=True, preset=QUICK, **options):
        optimiser = Counting(str(painting), preset, features=SmallFeatures(), device="cpu", **options)
        optimiser.fail_at = 2
        model, target = Stylizer(optimiser), tmp_path / "out.mp4"
        convert(source, target, str(painting), model=model, resize="64x48", resume=resume)

    with pytest.raises(VideoNSTError, match="switched off"):
        run(resume=False)
    cv2.imwrite(str(tmp_path / "other.png"), cv2.imread(str(painting))[::-1])
    for options, named in (
        ({"preset": replace(QUICK, style_weight=3.0)}, "style_weight of the preset"),
        ({"seed": 3}, "seed"),
        ({"start": "noise"}, "start"),
        ({"stroke_scale": 2.0}, "stroke_scale"),
    ):
        with pytest.raises(InputError, match=f"out.mp4: {named} changed since it was begun"):
            run(**options)
    (tmp_path / "other.png").replace(painting)
    with pytest.raises(InputError, match="paintings changed since it was begun"):
        run()


class Counting(OptimiseEngine):
    """Fails after a number of pictures, as a machine that is switched off."""

    painted, fail_at = 0, None

    def clip(self, flow):
        clip = super().clip(flow)
        original = self._painter.paint

        def paint(*arguments, **options):
            if self.painted == self.fail_at:
                raise VideoNSTError("switched off")
            self.painted += 1
            return original(*arguments, **options)

        self._painter.paint = paint
        return clip


@pytest.mark.parametrize(
    ("passes", "fail_at", "suffix"), [(1, 3, "out.mp4"), (1, 11, "%03d.png"), (3, 8, "%03d.png"), (3, 25, "out.mp4")]
)
def test_a_resumed_film_is_identical(tmp_path, painting, small_model, monkeypatch, passes, fail_at, suffix):
    """Interrupted before and after the end of the first segment; what was painted is not painted again. All frames
    begin with what the very first one chose."""
    monkeypatch.setattr(parts, "SEGMENT_SECONDS", 1)
    monkeypatch.setattr(starts.Network, "choose", lambda self, frame, mix: "ab"[frame.time > 0])
    source = make_clip(tmp_path / "clip.mp4", pts=range(0, 1500, 100), last_duration=100)
    preset = replace(QUICK, start="network", steps=(3,), next_steps=(2,), lags=(1, 2), passes=passes, window=4)
    model = str(small_model)

    def run(target, fail_at=None, resume=False):
        optimiser = Counting(str(painting), preset, features=SmallFeatures(), device="cpu", model=model)
        optimiser.fail_at = fail_at
        target.parent.mkdir(exist_ok=True)
        outcome = contextlib.nullcontext() if fail_at is None else pytest.raises(VideoNSTError, match="switched off")
        with outcome:
            convert(source, target, str(painting), model=Stylizer(optimiser), resize="64x48", resume=resume)
        return optimiser.painted

    whole = run(tmp_path / "whole" / suffix)
    begun = run(tmp_path / "resumed" / suffix, fail_at)
    rest = run(tmp_path / "resumed" / suffix, resume=True)
    assert begun + rest == whole
    paths = [sorted((tmp_path / name).iterdir()) for name in ("whole", "resumed")]
    assert [p.name for p in paths[0]] == [p.name for p in paths[1]]
    for expected, found in zip(*paths, strict=True):
        with open_source(expected) as a, open_source(found) as b:
            for x, y in zip(a, b, strict=True):
                assert x.time == y.time
                np.testing.assert_array_equal(x.pixels, y.pixels)
