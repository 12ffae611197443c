"""The live filter with a window that presses keys when told to."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip, video_timing
from live_fakes import Clock, FakeEngines

from videonst.errors import InputError
from videonst.live.capture import Capture
from videonst.live.controls import Controls
from videonst.live.outlet import Outlet
from videonst.live.painter import Painter
from videonst.live.run import LiveFilter
from videonst.sources.live import open_recording

TIMES = tuple(range(0, 1200, 40))


class FakeWindow:
    """Presses a key after every so many pictures."""

    def __init__(self, keys: dict[int, str]) -> None:
        self.keys = keys
        self.views: list[np.ndarray] = []
        self.full_screen = 0

    def show(self, view: np.ndarray) -> None:
        self.views.append(view)

    def key(self) -> str:
        return self.keys.pop(len(self.views), "")

    def toggle_full_screen(self) -> None:
        self.full_screen += 1


class Sink:
    def __init__(self) -> None:
        self.count = 0

    def write(self, frame) -> None:
        self.count += 1

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def controls() -> Controls:
    return Controls(("a", "b", "c"))


@pytest.fixture
def live(tmp_path: Path, controls: Controls):
    """Makes a filter over a clip of 1.2 s, of which it paints the inverse."""
    clip = make_clip(tmp_path / "clip.mp4", pts=TIMES)

    def make(keys: dict[int, str] | None = None, loop: bool = False, **options) -> LiveFilter:
        engines = FakeEngines(Clock())
        capture = Capture(open_recording(clip, loop=loop))
        captures.append(capture)
        window = None if keys is None else FakeWindow(keys)
        folder = tmp_path / "kept"
        folder.mkdir(exist_ok=True)
        return LiveFilter(
            capture.__enter__(), Painter(engines, controls), controls, window=window, folder=folder, **options
        )

    captures: list[Capture] = []
    yield make
    for capture in captures:
        capture.__exit__(None, None, None)


def test_it_ends_with_its_source_and_records_what_came(live: Callable[..., LiveFilter], tmp_path: Path):
    said: list[str] = []
    target = tmp_path / "kept" / "out.mp4"
    live(notice=said.append).run(record=target)
    starts = [round(start * 1000) for start, _ in video_timing(target)]
    assert said == [f"recording to {target}", f"recorded {len(starts)} frames in {target}"]
    first = TIMES[-1] - starts[-1]  # the last frame is never dropped
    assert {first + start for start in starts} <= set(TIMES)


def test_keys(live: Callable[..., LiveFilter], controls: Controls, tmp_path: Path):
    running = live({1: "n", 2: "n", 3: "p", 4: "c", 5: "f", 6: " ", 8: " ", 9: "s", 10: "r", 14: "r", 16: "q"})
    running.run()
    assert controls.read().shares == (("a", 0), ("b", 1), ("c", 0))
    assert controls.read().keep_colour
    window = running._window
    assert window.full_screen == 1
    assert len(window.views) == 16
    assert [view.shape[1] for view in window.views[5:9]] == [64, 128, 128, 64]
    (snapshot,) = (tmp_path / "kept").glob("*.png")
    assert cv2.imread(str(snapshot)).shape == (48, 64, 3)
    (recording,) = (tmp_path / "kept").glob("*.mp4")
    assert len(video_timing(recording)) == 4


def test_help_is_drawn_and_goes_away(live: Callable[..., LiveFilter], controls: Controls):
    running = live({1: "h", 2: "h", 3: "q"})
    running.run()
    bare, helped, after = (view[20].astype(int) for view in running._window.views)
    assert helped.mean() < bare.mean() / 2
    assert after.mean() > 2 * helped.mean()


def test_quitting_and_errors_finish_a_recording(live: Callable[..., LiveFilter], tmp_path: Path):
    live({1: "r", 9: "q"}).run()

    def interrupt(line: str) -> None:
        if running.painted > 5:
            raise KeyboardInterrupt

    running = live(loop=True)
    with pytest.raises(KeyboardInterrupt):
        running.run(record=tmp_path / "kept" / "interrupted.mp4", status=interrupt)
    found = sorted((tmp_path / "kept").glob("*"))
    assert len(found) == 2
    assert all(len(video_timing(path)) >= 5 for path in found)


def test_after_so_many_seconds(live: Callable[..., LiveFilter]):
    running = live(loop=True)
    running.run(0)
    assert running.painted == 1


def test_outlets_get_every_frame(live: Callable[..., LiveFilter]):
    sink = Sink()
    with Outlet(sink, waiting=100) as outlet:
        running = live(outlets=[outlet])
        running.run()
    assert sink.count == running.painted > 3


def test_names_of_files_do_not_collide(live: Callable[..., LiveFilter], tmp_path: Path):
    live(dict.fromkeys(range(2, 8), "s") | {8: "q"}).run()
    assert len(list((tmp_path / "kept").glob("*.png"))) == 6


def test_what_a_key_cannot_do_is_said_and_the_picture_goes_on(live: Callable[..., LiveFilter], tmp_path: Path):
    said: list[str] = []
    running = live({2: "s", 3: "r", 5: "q"}, notice=said.append)
    (tmp_path / "kept").rmdir()
    running.run()
    assert ["there is no directory" in line for line in said] == [True, True]
    assert len(running._window.views) == 5


def test_a_recording_that_cannot_be_written_is_refused(live: Callable[..., LiveFilter], tmp_path: Path):
    with pytest.raises(InputError, match="there is no directory"):
        live().run(record=tmp_path / "absent" / "out.mp4")


def test_status_says_what_was_chosen_and_achieved(live: Callable[..., LiveFilter]):
    lines: list[str] = []
    live().run(status=lines.append)
    assert lines[-1].startswith("auto: tiny at 48 lines; ")
    assert "fps, delay p50/p95" in lines[-1]
