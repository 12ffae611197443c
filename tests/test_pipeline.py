import os
import signal
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from clips import VFR, audio_packets, make_clip, video_timing

from videonst.errors import VideoNSTError
from videonst.frame import Frame
from videonst.pipeline import run
from videonst.sinks import open_sink
from videonst.sources import SourceInfo, open_source

pytestmark = pytest.mark.timeout(120)
PROMPT_SECONDS = 30
"""A machine that other work keeps busy takes seconds to end threads; what does not stop takes for ever."""


class Frames:
    """A source of numbered frames, endless where `count` is None."""

    def __init__(self, count, *, fail_at=None, error=VideoNSTError):
        self.info = SourceInfo(None, 2, 2, frame_count=count)
        self.yielded = 0
        self._fail_at, self._error = fail_at, error

    def __iter__(self):
        while self.info.frame_count is None or self.yielded < self.info.frame_count:
            if self.yielded == self._fail_at:
                raise self._error("source")
            self.yielded += 1
            yield Frame(np.zeros((2, 2, 3), np.uint8), pts=self.yielded - 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Collector:
    """A sink that remembers presentation times."""

    def __init__(self, *, fail_at=None, gate=None):
        self.pts = []
        self._fail_at, self._gate = fail_at, gate

    def write(self, frame):
        if self._gate:
            assert self._gate.wait(60)
        if len(self.pts) == self._fail_at:
            raise VideoNSTError("sink")
        self.pts.append(frame.pts)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def failing_at(index, error):
    def repaint(frame):
        if frame.pts == index:
            raise error
        return frame

    return repaint


@pytest.mark.parametrize("count", [0, 1, 3, 100])
@pytest.mark.parametrize("queue_size", [1, 4])
def test_every_frame_arrives_in_order(count, queue_size):
    sink = Collector()
    final = run(Frames(count), lambda frame: frame, sink, queue_size=queue_size)
    assert sink.pts == list(range(count))
    assert final.frames_done == count


def test_a_clip_passes_with_its_times_and_sound(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", pts=VFR, last_duration=70, audio=["aac"])
    with open_source(path) as source, open_sink(tmp_path / "out.mp4", source.info) as sink:
        final = run(source, lambda frame: frame.with_pixels(255 - frame.pixels), sink)
    assert final.frames_done == final.frames_total == len(VFR)
    assert [t for t, _ in video_timing(tmp_path / "out.mp4")] == [Fraction(pts, 1000) for pts in VFR]
    assert audio_packets(tmp_path / "out.mp4") == audio_packets(path)
    with open_source(path) as before, open_source(tmp_path / "out.mp4") as after:
        for original, repainted in zip(before, after, strict=True):
            assert np.abs(255 - original.pixels.astype(int) - repainted.pixels).mean() < 2


def test_the_source_runs_ahead_no_further_than_the_queues():
    queue_size, in_hand = 3, 3  # one frame in the hands of each stage
    gate = threading.Event()
    source = Frames(100)
    sink = Collector(gate=gate)
    release = threading.Timer(0.5, lambda: (ahead.append(source.yielded), gate.set()))
    ahead = []
    release.start()
    run(source, lambda frame: frame, sink, queue_size=queue_size)
    release.join()
    assert ahead[0] <= 2 * queue_size + in_hand
    assert len(sink.pts) == 100


@pytest.mark.parametrize("fail_at", [0, 7])
@pytest.mark.parametrize("stage", ["source", "repaint", "sink", "progress"])
def test_the_first_error_stops_all_stages_and_reaches_the_caller(stage, fail_at):
    """The source is endless, so a stage that does not stop would run into the time limit."""
    source = Frames(None, fail_at=fail_at if stage == "source" else None)
    sink = Collector(fail_at=fail_at if stage == "sink" else None)
    error = VideoNSTError(stage)
    repaint = failing_at(fail_at if stage == "repaint" else None, error)

    def progress(_):
        if stage == "progress":
            raise error

    started = time.monotonic()
    with pytest.raises(VideoNSTError, match=stage) as raised:
        run(source, repaint, sink, progress=progress, queue_size=1)
    assert time.monotonic() - started < PROMPT_SECONDS
    assert raised.value.__context__ is None
    if stage in ("repaint", "progress"):
        assert raised.value is error


def test_the_cause_of_an_error_is_kept():
    def repaint(frame):
        raise VideoNSTError("outer") from ZeroDivisionError("inner")

    with pytest.raises(VideoNSTError) as raised:
        run(Frames(None), repaint, Collector())
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("waiting", ["for the source", "for the sink", "in repaint"])
def test_ctrl_c_stops_all_stages(waiting):
    release = threading.Event()

    class Slow(Frames):
        def __iter__(self):
            if waiting == "for the source":
                release.wait(60)
            yield from super().__iter__()

    def repaint(frame):
        if waiting == "in repaint":
            time.sleep(60)
        return frame

    sink = Collector(gate=release if waiting == "for the sink" else None)
    timers = [
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)),
        threading.Timer(0.6, release.set),
    ]
    for timer in timers:
        timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(Slow(None), repaint, sink, queue_size=1)
    assert time.monotonic() - started < PROMPT_SECONDS
    for timer in timers:
        timer.join()


def test_a_failed_run_leaves_no_output(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    with (
        pytest.raises(ZeroDivisionError),
        open_source(path) as source,
        open_sink(tmp_path / "out.mp4", source.info) as sink,
    ):
        run(source, failing_at(source_pts(path, 5), ZeroDivisionError()), sink)
    assert os.listdir(tmp_path) == ["clip.mp4"]


def source_pts(path, index):
    with open_source(path) as source:
        return [frame.pts for frame in source][index]


def test_progress():
    reports = []
    run(Frames(20), lambda frame: time.sleep(0.005) or frame, Collector(), progress=reports.append)
    done = [report.frames_done for report in reports]
    assert done == sorted(done)
    assert done[-1] == 20
    assert len(done) == 21
    assert {report.frames_total for report in reports} == {20}
    assert 0 < reports[-1].frames_per_second < 200
    assert reports[-1].seconds_left == 0
    middle = next(report for report in reports if report.frames_done == 10)
    assert middle.seconds_left == pytest.approx(10 / middle.frames_per_second)


def test_progress_without_a_total():
    class Unknown(Frames):
        def __init__(self):
            super().__init__(5)
            self.total, self.info = self.info, SourceInfo(None, 2, 2)

        def __iter__(self):
            for index in range(5):
                yield Frame(np.zeros((2, 2, 3), np.uint8), pts=index)

    final = run(Unknown(), lambda frame: frame, Collector())
    assert (final.frames_done, final.frames_total, final.seconds_left) == (5, None, None)


@pytest.mark.parametrize("stage", ["decode", "encode"])
@pytest.mark.parametrize("starts", [True, False])
def test_ctrl_c_while_a_stage_starts(stage, starts, monkeypatch):
    """Whether its thread came to life or not: the interruption arrives unchanged, and nothing is at work any longer."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        is_meant = thread.name == f"videonst-{stage}"
        if starts or not is_meant:
            start(thread)
        if is_meant:
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        run(Frames(20), lambda frame: frame, Collector())
    assert not set(threading.enumerate()) - before
