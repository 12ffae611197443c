"""The one-slot box: newest only, drops counted, nobody left waiting."""

import threading

import pytest

from videonst.live.latest import Closed, Latest

WAIT = 30.0


def test_only_the_newest_is_taken_and_the_rest_are_counted():
    time = iter([1.0, 2.0, 3.0, 4.0])
    box: Latest[str] = Latest(clock=lambda: next(time))
    for item in "abc":
        box.put(item)
    assert box.take(WAIT) == ("c", 3.0)
    assert box.drops == 2
    box.put("d")
    assert box.take(WAIT) == ("d", 4.0)
    assert box.drops == 2


def test_nothing_within_the_time_out_is_none():
    assert Latest().take(0) is None


def test_closing_lets_the_last_item_out_and_then_ends():
    box: Latest[int] = Latest()
    box.put(1)
    box.close()
    box.put(2)
    assert box.take(WAIT).item == 1
    with pytest.raises(Closed):
        box.take(WAIT)
    assert box.drops == 0


def test_the_first_error_reaches_the_taker():
    box: Latest[int] = Latest()
    box.close(ValueError("first"))
    box.close(ValueError("second"))
    with pytest.raises(ValueError, match="first"):
        box.take(WAIT)


@pytest.mark.parametrize("wake", ["put", "close"])
def test_a_waiting_taker_wakes(wake: str):
    box: Latest[int] = Latest()
    seen: list[object] = []

    def take() -> None:
        try:
            seen.append(box.take(WAIT * 6).item)
        except Closed:
            seen.append("closed")

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    if wake == "put":
        box.put(5)
    else:
        box.close()
    taker.join(WAIT)
    assert seen == [5 if wake == "put" else "closed"]
