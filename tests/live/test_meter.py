"""Rates, delays and drops, on a clock of our own."""

import numpy as np
import pytest

from videonst.live.meter import Meter, percentile


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rate_delays_and_drops_of_the_window():
    clock = Clock()
    meter = Meter(window=2.0, clock=clock)
    for index in range(300):
        clock.now += 0.04
        meter.shown(0.001 * (index % 100), drops=index % 2)
    reading = meter.read()
    assert reading.fps == pytest.approx(25)
    last = [0.001 * (index % 100) for index in range(250, 300)]
    assert reading.delay_p50 == percentile(last, 50)
    assert reading.delay_p95 == percentile(last, 95)
    assert reading.drops == 25


def test_the_rate_is_right_from_the_first_frame_and_falls_when_nothing_comes():
    clock = Clock()
    meter = Meter(window=2.0, clock=clock)
    assert meter.read() == (0, 0, 0, 0)
    clock.now += 0.1
    meter.shown(0.1)
    assert meter.read().fps == pytest.approx(10)
    clock.now += 0.9
    assert meter.read().fps == pytest.approx(1)
    clock.now += 5
    assert meter.read() == (0, 0, 0, 0)


@pytest.mark.parametrize("percent", [1, 50, 95, 99, 100])
def test_percentile_is_the_nearest_rank(percent: float):
    values = list(np.random.default_rng(1).normal(size=37))
    assert percentile(values, percent) == np.percentile(values, percent, method="inverted_cdf")
