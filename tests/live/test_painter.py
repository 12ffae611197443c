"""From the controls to painted frames: the size never changes, models load when needed, quality follows."""

import threading
from pathlib import Path

import numpy as np
import pytest
from live_fakes import Clock, FakeEngine, FakeEngines, grey

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.live.controls import Controls
from videonst.live.latest import Closed, Latest
from videonst.live.loop import LiveLoop
from videonst.live.painter import TIERS, Engines, Painted, Painter
from videonst.live.quality import Rung
from videonst.models import find_model


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engines(clock: Clock) -> FakeEngines:
    return FakeEngines(clock)


@pytest.fixture
def controls() -> Controls:
    return Controls(("a", "b", "c"), models=("full", "fast", "tiny"), steady=0)


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (641, 359), (64, 48)])
@pytest.mark.parametrize("lines", [None, 64, 144, 2000])
def test_painted_at_the_working_size_and_returned_at_the_frames(engines, controls, clock, size, lines):
    controls.change(model="fast", lines=lines)
    painter = Painter(engines, controls, clock=clock)
    frame = grey(40, size, pts=7)
    painted = painter.paint(frame)
    assert painted.frame == frame.with_pixels(painted.frame.pixels)
    assert (painted.frame.pixels == 215).all()
    assert painted.frame.pixels.shape == frame.pixels.shape
    assert painted.original is frame
    (worked,) = engines.engines["fast"].sizes
    assert min(worked) == min(painted.rung.lines, *size)
    assert worked[0] / worked[1] == pytest.approx(size[0] / size[1], rel=0.02)


def test_the_picture_is_scaled_and_not_cropped(engines, controls, clock):
    controls.change(model="tiny", lines=90)
    ramp = np.broadcast_to(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (360, 640, 3))
    painted = Painter(engines, controls, clock=clock).paint(Frame(np.ascontiguousarray(ramp)))
    assert np.abs(painted.frame.pixels.astype(int) - (255 - ramp.astype(int))).max() <= 2


def test_controls_take_effect_on_the_next_frame(engines, controls, clock):
    painter = Painter(engines, controls, clock=clock)
    controls.change(model="full")
    painter.paint(grey(1))
    controls.change(model="tiny", shares={"b": 0.5, "c": 0.5}, keep_colour=True)
    painter.paint(grey(2))
    assert engines.asked == ["full", "tiny"]
    (mix,) = engines.engines["tiny"].mixes
    assert mix.shares == (("b", 0.5), ("c", 0.5))
    assert mix.keep_colour


@pytest.mark.parametrize("change", [{"strength": 0}, {"shares": {}}])
def test_the_untouched_picture_needs_no_engine(engines, controls, clock, change):
    controls.change(**change)
    painted = Painter(engines, controls, clock=clock).paint(frame := grey(9))
    assert painted.frame is frame
    assert not painted.fresh
    assert engines.asked == []


SIZE = (426, 240)


def play(loop: LiveLoop, box: Latest[Frame], clock: Clock, seconds: float, still: bool = False) -> list[Rung]:
    """A camera at 30 fps on the fake clock; frames that come while one is painted replace each other."""
    rungs, due, end = [], clock.now, clock.now + seconds
    while clock.now < end:
        while due <= clock.now:
            stamped, clock.now = clock.now, due
            box.put(grey(50 if still else round(30 * due) % 200, SIZE, pts=round(1000 * due)))
            clock.now, due = stamped, due + 1 / 30
        painted = loop.next(0)
        if painted:
            rungs.append(painted.rung)
        else:
            clock.now = due
    return rungs


def test_quality_follows_an_overload_and_delay_stays_bounded(controls, clock):
    engines = FakeEngines(clock, seconds_per_pixel=0.026 / (SIZE[0] * SIZE[1]))
    box: Latest[Frame] = Latest(clock)
    loop = LiveLoop(box, Painter(engines, controls, clock=clock), clock)
    play(loop, box, clock, 8)
    settled = loop.meter.read()
    assert settled.fps == pytest.approx(30, rel=0.02)
    assert settled.delay_p95 <= 1 / 30
    assert settled.drops == 0
    for engine in engines.engines.values():
        engine.seconds_per_pixel *= 3
    play(loop, box, clock, 1.9)
    assert loop.meter.read().drops > 0
    play(loop, box, clock, 2.1)
    after = loop.meter.read()
    assert after.fps == pytest.approx(30, rel=0.02)
    assert after.delay_p95 <= 1.5 / 30
    assert after.drops == 0


def test_untouched_frames_do_not_lift_the_quality(controls, clock):
    engines = FakeEngines(clock, seconds_per_pixel=0.04 / (SIZE[0] * SIZE[1]))
    box: Latest[Frame] = Latest(clock)
    loop = LiveLoop(box, Painter(engines, controls, clock=clock), clock)
    settled = play(loop, box, clock, 3)[-1]
    assert settled == Rung("tiny", 192)
    controls.change(strength=0)
    assert set(play(loop, box, clock, 60)) == {settled}


def test_frames_equal_to_the_one_before_do_not_lift_the_quality(controls, clock):
    controls.change(steady=0.5)
    engines = FakeEngines(clock, seconds_per_pixel=0.04 / (SIZE[0] * SIZE[1]))
    box: Latest[Frame] = Latest(clock)
    loop = LiveLoop(box, Painter(engines, controls, clock=clock), clock)
    settled = play(loop, box, clock, 3)[-1]
    assert settled == Rung("tiny", 192)
    assert set(play(loop, box, clock, 8, still=True)) == {settled}


def test_steadiness_ties_frames_to_the_ones_before(engines, controls, clock):
    noise = np.random.default_rng(0).normal(0, 8, (6, 48, 64, 3))
    frames = [Frame((128 + n).clip(0, 255).astype(np.uint8), pts=40 * i) for i, n in enumerate(noise)]
    trembling = {}
    for steady in (0.0, 0.5, 0.9):
        controls.change(steady=steady)
        painter = Painter(engines, controls, clock=clock)
        painted = np.stack([painter.paint(frame).frame.pixels for frame in frames]).astype(float)
        trembling[steady] = np.abs(np.diff(painted, axis=0)).mean()
    assert trembling[0.9] < trembling[0.5] < trembling[0.0]


def test_the_history_goes_along_to_another_model_of_the_same_styles(engines, controls, clock):
    """A step of the quality is no jump of the picture; a model with other styles begins anew."""
    controls.change(steady=1, model="fast")
    painter = Painter(engines, controls, clock=clock)

    def paint(pts: int) -> tuple[Frame, Painted]:
        blocks = np.random.default_rng(0).integers(40, 215, (6, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
        noise = np.random.default_rng(pts).normal(0, 2, blocks.shape)
        frame = Frame((blocks + noise).astype(np.uint8), pts=pts)
        return frame, painter.paint(frame)

    before = paint(0)[1].frame.pixels.astype(int)
    controls.change(model="tiny")
    frame, painted = paint(1)
    own = 255 - frame.pixels.astype(int)
    assert np.abs(painted.frame.pixels - before).mean() < 0.3 * np.abs(own - before).mean()
    assert not paint(1)[1].fresh
    controls.change(model="fast")
    assert paint(1)[1].fresh
    engines.engines["other"] = FakeEngine(clock, 0.0, names="ad")
    controls.adopt(("a", "d"), ("other",))
    controls.change(model="other")
    frame, painted = paint(2)
    assert np.array_equal(painted.frame.pixels, 255 - frame.pixels)


def test_strength_zero_forgets_the_past(engines, controls, clock):
    controls.change(steady=0.9)
    painter = Painter(engines, controls, clock=clock)
    for pts, strength in enumerate([1, 1, 0, 1]):
        controls.change(strength=strength)
        painted = painter.paint(grey(50 + 20 * pts, pts=pts))
    assert (painted.frame.pixels == 255 - 110).all()


def test_the_loop_ends_with_its_box(engines, controls, clock):
    box: Latest[Frame] = Latest(clock)
    loop = LiveLoop(box, Painter(engines, controls, clock=clock), clock)
    assert loop.next(0) is None
    box.put(grey(1))
    box.close()
    assert loop.next(0) is not None
    with pytest.raises(Closed):
        loop.next(0)


def test_engines_load_when_asked_and_stay(small_model: Path):
    engines = Engines(str(small_model), "cpu")
    assert engines.models == (str(small_model),)
    assert engines.style_names == ("a", "b", "c")
    engine = engines.get(str(small_model))
    assert engines.get(str(small_model)) is engine
    assert engine.description.device == "cpu"


def test_loading_in_the_background_is_over_with_its_block(small_model: Path):
    engines = Engines(str(small_model), "cpu")
    with engines.loading(str(small_model)):
        pass
    assert "videonst-load" not in {thread.name for thread in threading.enumerate()}
    assert engines._loaded
    with engines.loading("absent.onnx"):
        pass
    with pytest.raises(InputError, match=r"no file absent\.onnx"):
        engines.get("absent.onnx")


def test_the_shipped_tiers_stand_best_first():
    engines = Engines()
    assert engines.models == tuple(tier for tier in TIERS if find_model(tier))
    assert len(engines.styles) > 4


def test_an_unknown_model_is_refused():
    with pytest.raises(InputError, match="unknown model 'fats'"):
        Engines("fats")
