"""A recording that stands in for a camera: when frames come, on a clock of our own."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from clips import VFR, make_clip
from live_fakes import Clock, grey

from videonst.errors import InputError
from videonst.frame import Frame
from videonst.live.capture import Capture
from videonst.live.latest import Closed
from videonst.sources import SourceInfo
from videonst.sources import live as live_module
from videonst.sources.live import StreamSource, camera_id, open_recording
from videonst.sources.paced import LOST_SECONDS, PacedSource, Pacer

WAIT = 30.0


class Recording:
    """Frames at given times (ms); decoding one takes `slowness` seconds on the clock."""

    def __init__(self, clock: Clock, times=(0, 40, 80), slowness: float = 0, still: bool = False) -> None:
        self.info = SourceInfo(None, 64, 48, is_still=still)
        self._clock, self._times, self._slowness = clock, times, slowness
        self.closed = False

    def __iter__(self) -> Iterator:
        for time in self._times:
            self._clock.now += self._slowness
            yield replace(grey(1, pts=time), duration=40)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


def paced(clock: Clock, open_recording, **options) -> PacedSource:
    def wait(seconds: float) -> None:
        clock.now += seconds

    return PacedSource(open_recording, clock=clock, wait=wait, **options)


def drain(capture: Capture) -> list[Frame]:
    """What comes until the end."""
    taken = []
    with suppress(Closed):
        while True:
            taken.append(capture.box.take(WAIT).item)
    return taken


def test_pacing_decisions():
    pacer = Pacer()
    assert pacer.wait(5.0, 100.0) == 0  # the first frame is due now, whatever its time
    assert pacer.wait(5.5, 100.1) == pytest.approx(0.4)
    assert pacer.wait(5.6, 100.65) == 0  # a little late
    assert pacer.wait(5.7, 100.65) == pytest.approx(0.05)  # and caught up
    assert pacer.wait(5.8, 100.8 + LOST_SECONDS + 0.1) == 0  # lost touch: on from here
    assert pacer.wait(5.9, 100.8 + LOST_SECONDS + 0.1) == pytest.approx(0.1)
    assert pacer.wait(-50.0, 102.0) == 0  # the recording's times jump back
    assert pacer.wait(900.0, 102.1) == 0  # and far ahead


def test_frames_come_at_their_times():
    clock = Clock(50.0)
    seen = [(clock.now, frame.pts) for frame in paced(clock, lambda: Recording(clock, VFR))]
    assert [pts for _, pts in seen] == list(VFR)
    assert [now - 50 for now, _ in seen] == pytest.approx([pts / 1000 for pts in VFR])


def test_looping_goes_on_in_time_and_closes_every_round():
    clock = Clock()
    rounds = []

    def open_again() -> Recording:
        rounds.append(Recording(clock))
        return rounds[-1]

    with paced(clock, open_again, loop=True) as source:
        frames = iter(source)
        pts = [next(frames).pts for _ in range(8)]
        assert clock.now == pytest.approx(pts[-1] / 1000)
    assert pts == sorted(set(pts))
    assert pts[:3] == [0, 40, 80]
    assert {b - a for a, b in pairwise(pts)} == {40}
    assert [recording.closed for recording in rounds] == [True] * len(rounds)


def test_a_round_leaves_nothing_behind_that_waits_to_be_collected():
    """Decoders hold their memory in circles of objects: a clip looped for hours must not pile them up."""

    class Circle(Recording):
        def __init__(self) -> None:
            super().__init__(clock)
            self.itself = self
            alive.add(self)

    clock, alive = Clock(), weakref.WeakSet()
    gc.disable()
    try:
        frames = iter(paced(clock, Circle, loop=True))
        for _ in range(12):
            next(frames)
            assert len(alive) <= 2
    finally:
        gc.enable()


def test_a_slow_decoder_delivers_all_it_can_and_a_stall_is_caught_up_with():
    clock = Clock()
    frames = list(paced(clock, lambda: Recording(clock, range(0, 4000, 40), slowness=0.06)))
    assert len(frames) == 100
    assert clock.now == pytest.approx(6)

    clock = Clock()
    recording = Recording(clock, range(0, 4000, 40))
    for number, _ in enumerate(paced(clock, lambda: recording)):
        clock.now += 0.3 if number == 20 else 0
    assert clock.now == pytest.approx(3.96)


def test_a_single_picture_is_repeated():
    clock = Clock()
    frames = iter(paced(clock, lambda: Recording(clock, (0,), still=True)))
    assert [next(frames).time for _ in range(4)] == [Fraction(n, 30) for n in range(4)]
    assert clock.now == pytest.approx(0.1)


def test_a_clip_through_a_capture(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", pts=range(0, 200, 40))
    with Capture(open_recording(clip)) as capture:
        taken = drain(capture)
    assert taken[-1].time == Fraction(160, 1000)
    assert [frame.time for frame in taken] == sorted({frame.time for frame in taken})
    assert not capture._thread.is_alive()


def test_stopping_ends_a_long_wait():
    clock = Clock()
    source = PacedSource(lambda: Recording(clock, (0, 900)), clock=clock)
    with Capture(source) as capture:
        capture.box.take(WAIT)
    assert not capture._thread.is_alive()


def test_a_failing_source_reaches_the_taker():
    class Broken(Recording):
        def __iter__(self):
            yield grey(1)
            raise OSError("torn")

    clock = Clock()
    with Capture(paced(clock, lambda: Broken(clock))) as capture, pytest.raises(OSError, match="torn"):
        drain(capture)


class Stream:
    """A network camera that delivers so many frames and ends."""

    info = SourceInfo(None, 64, 48)

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self.closed = self.stopped = False

    def __iter__(self) -> Iterator[Frame]:
        return (grey(7, pts=9000 * n) for n in range(self._frames))

    def stop(self) -> None:
        self.stopped = True

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


def test_a_network_camera_that_ends_is_called_again(monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setattr(live_module, "RETRY_SECONDS", 0.001)
    first, second = Stream(2), Stream(3)
    answers = iter([InputError("no answer"), InputError("no answer"), second])
    troubles = []

    def reopen() -> Stream:
        troubles.append(source.trouble)
        answer = next(answers)
        if isinstance(answer, InputError):
            raise answer
        return answer

    times = iter([0.0, 0.5, 1.0, 7.0, 7.25, 7.5])
    with StreamSource(first, reopen, clock=lambda: next(times)) as source:
        frames = iter(source)
        seen = [float(next(frames).time) for _ in range(5)]
        assert seen == [0.5, 1.0, 7.0, 7.25, 7.5]  # when they came
        assert first.closed
        assert source.trouble == ""
        source.stop()
        assert list(frames) == []
    assert troubles == ["the stream ended; waiting for it to come back"] * 3
    assert second.stopped
    assert second.closed
    assert "the stream is back" in caplog.text


def test_what_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_recording(tmp_path / "absent.mp4")


def test_cameras_are_named_by_number_or_device():
    assert camera_id("2") == 2
    assert camera_id("/dev/video4") == "/dev/video4"
    for text in ("", "two", "-1", "clip.mp4"):
        with pytest.raises(InputError, match="--list-cameras"):
            camera_id(text)
