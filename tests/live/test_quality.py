"""Decisions of the quality controller on a machine and a clock that we make up: no thread, no sleep."""

import pytest

from videonst.live.quality import QualityController, Rung, ladder

TIERS = ("full", "fast", "tiny")


class Machine:
    """Paints in a time that grows with the pixels, and runs a controller at a camera's rate."""

    def __init__(self, controller: QualityController, clock: "Clock", nanoseconds: float, rate: float = 30) -> None:
        self.controller, self.clock, self.rate = controller, clock, rate
        self.nanoseconds = nanoseconds
        self.factors = {"full": 12.0, "fast": 4.0, "tiny": 1.0}
        self.visited = [controller.rung]

    def seconds(self, rung: Rung) -> float:
        return self.nanoseconds * 1e-9 * self.factors[rung.model] * rung.lines**2 * 16 / 9

    def run(self, seconds: float, *, painted: bool = True) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            busy = self.seconds(self.controller.rung) if painted else 0.0001
            self.clock.now += max(busy, 1 / self.rate)
            if self.controller.record(busy, painted=painted):
                self.visited.append(self.controller.rung)

    @property
    def best(self) -> Rung:
        """The best rung that this machine can hold."""
        return next(r for r in ladder(TIERS, 720) if self.seconds(r) <= 1 / self.controller.rate)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(nanoseconds: float, rungs=None, rate: float = 30) -> Machine:
    clock = Clock()
    return Machine(QualityController(rungs or ladder(TIERS, 720), rate, clock), clock, nanoseconds)


def test_the_ladder_goes_down_in_size_and_then_in_model():
    rungs = ladder(TIERS, 480)
    assert rungs[0] == Rung("full", 480)
    assert rungs[-1] == Rung("tiny", 144)
    assert [r.model for r in rungs] == sorted([r.model for r in rungs], key=TIERS.index)
    for model in TIERS:
        sizes = [r.lines for r in rungs if r.model == model]
        assert sizes == sorted(sizes, reverse=True)
    assert ladder(TIERS, 480, lines=300) == tuple(Rung(t, 300) for t in TIERS)
    assert ladder(("fast",), 480, lines=720) == (Rung("fast", 480),)
    assert ladder(TIERS, 48) == tuple(Rung(t, 48) for t in TIERS)
    assert max(r.lines for r in ladder(TIERS, 2160)) == 1080


@pytest.mark.parametrize(("lines", "first"), [(720, 240), (240, 240), (200, 200), (48, 48)])
def test_it_begins_with_the_smallest_model_at_a_small_size(lines: int, first: int):
    assert QualityController(ladder(TIERS, lines)).rung == Rung("tiny", first)
    assert QualityController(ladder(("fast",), 720, 360)).rung == Rung("fast", 360)


@pytest.mark.parametrize("nanoseconds", [1, 10, 50, 130, 400, 900])
def test_it_settles_where_the_rate_holds_and_not_lower_than_the_headroom_asks(nanoseconds: float):
    machine = make(nanoseconds)
    machine.run(60)
    rung = machine.controller.rung
    assert machine.seconds(rung) <= 1 / 30
    better = ladder(TIERS, 720)[: ladder(TIERS, 720).index(rung)]
    same_model = [r for r in better if r.model == rung.model]
    assert all(machine.seconds(r) > 0.8 / 30 for r in same_model)


def test_overload_is_answered_within_two_seconds_and_by_one_step():
    machine = make(50)
    machine.run(60)
    machine.visited.clear()
    machine.nanoseconds *= 5
    began = machine.clock.now
    while not machine.visited:
        machine.run(0.01)
    assert machine.clock.now - began <= 2
    assert machine.seconds(machine.controller.rung) <= 1 / 30
    machine.run(2.5)
    assert len(machine.visited) == 1


def test_a_machine_too_slow_for_all_ends_at_the_cheapest_and_stays():
    machine = make(20_000)
    machine.run(60)
    assert machine.controller.rung == Rung("tiny", 144)
    assert len(machine.visited) <= 3


def test_it_comes_back_up_when_the_load_goes_away():
    machine = make(50)
    machine.run(60)
    settled = machine.controller.rung
    machine.nanoseconds *= 5
    machine.run(5)
    assert machine.controller.rung != settled
    machine.nanoseconds /= 5
    machine.run(40)
    assert machine.controller.rung == settled


def test_it_does_not_swing():
    """A machine whose larger models cost more than the table says: the steps that fail come ever more rarely."""
    machine = make(60)
    machine.factors = {"full": 60.0, "fast": 20.0, "tiny": 1.0}
    machine.run(60)
    machine.visited.clear()
    machine.run(600)
    assert len(machine.visited) <= 12
    assert machine.seconds(machine.controller.rung) <= 1 / 30


def test_a_few_slow_frames_decide_nothing():
    machine = make(50)
    machine.run(60)
    machine.visited.clear()
    for _ in range(20):
        machine.run(2.9)
        machine.clock.now += 0.2
        machine.controller.record(0.2)
    assert machine.visited == []


def test_frames_that_were_not_painted_are_no_evidence():
    machine = make(400)
    machine.run(60)
    settled = machine.controller.rung
    machine.visited.clear()
    machine.run(120, painted=False)
    assert machine.visited == []
    assert machine.controller.rung == settled


def test_frames_not_painted_between_others_do_not_hide_an_overload():
    machine = make(50)
    machine.run(60)
    machine.visited.clear()
    machine.nanoseconds *= 5
    for _ in range(20):
        machine.run(0.05)
        machine.run(0.05, painted=False)
    assert machine.visited


def test_a_pinned_rung_stays():
    machine = make(20_000, ladder(("fast",), 720, 360))
    assert machine.controller.pinned
    machine.run(30)
    assert machine.visited == [Rung("fast", 360)]


def test_other_rungs_are_taken_up_at_once():
    machine = make(50)
    machine.run(60)
    controller = machine.controller
    settled = controller.rung
    controller.offer(ladder(TIERS, 540))
    assert controller.rung == settled
    controller.offer(ladder(("tiny",), 720))
    assert controller.rung.model == "tiny"
    assert machine.seconds(controller.rung) <= 1 / 30
    controller.offer((Rung("full", 720),))
    assert controller.rung == Rung("full", 720)


def test_a_slower_camera_buys_quality():
    slow, quick = make(130, rate=10), make(130, rate=30)
    slow.rate = 10
    slow.run(60)
    quick.run(60)
    rungs = ladder(TIERS, 720)
    assert rungs.index(slow.controller.rung) < rungs.index(quick.controller.rung)
