"""What is written over the picture, and what is not."""

import numpy as np
import pytest
from live_fakes import grey

from videonst.live.painter import Painted
from videonst.live.quality import Rung
from videonst.live.view import WAITING_LEVEL, compose, waiting

SIZE = (320, 180)


@pytest.fixture
def painted() -> Painted:
    return Painted(grey(200, SIZE), grey(60, SIZE), Rung("tiny", 144), True)


def written(view: np.ndarray, level: int = 200) -> np.ndarray:
    """Where something was drawn, (H, W)."""
    return (view != level).any(axis=2)


def test_bare_it_is_the_painted_picture_and_a_copy(painted: Painted):
    view = compose(painted)
    assert np.array_equal(view, painted.frame.pixels)
    view[:] = 0
    assert (painted.frame.pixels == 200).all()


def test_the_original_stands_on_the_left(painted: Painted):
    view = compose(painted, side_by_side=True)
    assert view.shape == (180, 640, 3)
    assert (view[:, :320] == 60).all()
    assert (view[:, 320:] == 200).all()


@pytest.mark.parametrize(
    ("options", "rows", "columns"),
    [
        ({"status": ("tiny", "30 fps")}, slice(150, 180), slice(0, 160)),
        ({"trouble": "no camera"}, slice(0, 18), slice(0, 160)),
        ({"recording": "REC 3 s"}, slice(0, 18), slice(200, 320)),
        ({"trouble": "no camera", "recording": "REC"}, slice(0, 30), slice(0, 320)),
        ({"show_help": True}, slice(20, 150), slice(0, 320)),
    ],
)
def test_lines_have_their_places_and_nothing_else_is_touched(painted: Painted, options, rows, columns):
    mask = written(compose(painted, **options))
    assert mask[rows, columns].any()
    mask[rows, columns] = False
    assert not mask.any()
    assert (painted.frame.pixels == 200).all()


def test_text_reads_on_white_and_on_black():
    for level in (0, 255):
        view = compose(Painted(grey(level, SIZE), grey(0, SIZE), Rung("tiny", 144), True), status=("fps",))
        assert np.abs(view.astype(int) - level).max() > 200


def test_waiting_has_the_size_asked_for():
    view = waiting((320, 180), "opening")
    assert view.shape == (180, 320, 3)
    assert written(view, WAITING_LEVEL).any()
