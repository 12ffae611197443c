"""Frames on their way out: recordings with true times, slow and failing sinks."""

import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from clips import VFR, video_timing
from live_fakes import grey

from videonst.errors import VideoNSTError
from videonst.frame import Frame
from videonst.live.outlet import Outlet
from videonst.sinks import open_sink
from videonst.sources import SourceInfo

WAIT = 30.0


class Sink:
    """Keeps what it is given; waits at the gate before every frame."""

    def __init__(self, open_gate: bool = True, error: Exception | None = None) -> None:
        self.frames: list[Frame] = []
        self.gate, self.error = threading.Event(), error
        self.thread: threading.Thread | None = None
        self.ended = ""
        if open_gate:
            self.gate.set()

    def write(self, frame: Frame) -> None:
        self.gate.wait(WAIT)
        if self.error:
            raise self.error
        self.frames.append(frame)

    def __enter__(self):
        self.thread = threading.current_thread()
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.ended = "badly" if error else "well"


def test_a_recording_has_the_times_of_its_frames_from_zero(tmp_path: Path):
    path = tmp_path / "out.mp4"
    with Outlet(open_sink(path, SourceInfo(None, 64, 48)), waiting=len(VFR)) as outlet:
        for time in VFR:
            outlet.put(replace(grey(time % 256, pts=5_000_000 + 1000 * time), time_base=Fraction(1, 1_000_000)))
    timing = video_timing(path)
    assert [start for start, _ in timing] == [Fraction(time, 1000) for time in VFR]
    assert outlet.frames == len(VFR)
    ends = [start + duration for start, duration in timing]
    assert ends[:-1] == [start for start, _ in timing[1:]]
    assert timing[-1].duration == Fraction(80, 1000)  # as long as the one before


def test_every_frame_lasts_until_the_next():
    sink = Sink()
    with Outlet(sink) as outlet:
        for pts in (100, 140, 150, 300):
            outlet.put(grey(1, pts=pts))
    assert [(f.pts, f.duration) for f in sink.frames] == [(0, 40), (40, 10), (50, 150), (200, 150)]


def test_a_frame_that_goes_back_in_time_is_left_out():
    sink = Sink()
    with Outlet(sink) as outlet:
        for pts in (0, 40, 20, 80):
            outlet.put(grey(1, pts=pts))
    assert [f.pts for f in sink.frames] == [0, 40, 80]


def test_a_slow_sink_never_holds_up_who_paints(caplog: pytest.LogCaptureFixture):
    sink = Sink(open_gate=False)
    outlet = Outlet(sink, lasting=False, waiting=2)
    for pts in range(10):
        outlet.put(grey(pts, pts=pts))
    sink.gate.set()
    outlet.close()
    assert outlet.drops >= 7  # two wait, and one may be at the gate
    assert outlet.frames + outlet.drops == 10
    assert [f.pts for f in sink.frames] == sorted({f.pts for f in sink.frames})
    assert "frames were not written" in caplog.text


def test_the_sink_lives_in_one_thread_that_ends():
    sink = Sink()
    with Outlet(sink) as outlet:
        outlet.put(grey(1))
    assert sink.thread not in (None, threading.current_thread())
    assert not sink.thread.is_alive()
    assert sink.ended == "well"


def test_the_failure_of_a_sink_reaches_who_paints():
    sink = Sink(error=VideoNSTError("disk full"))
    outlet = Outlet(sink)
    outlet.put(grey(1, pts=0))
    outlet.put(grey(1, pts=1))  # only then it is known how long the first lasts
    outlet._thread.join(WAIT)
    with pytest.raises(VideoNSTError, match="disk full"):
        outlet.put(grey(1, pts=2))
    with pytest.raises(VideoNSTError, match="disk full"):
        outlet.close()
    assert sink.ended == "badly"
