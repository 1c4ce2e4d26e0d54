import time

import pytest
from dreambooth import watch
from dreambooth.errors import Stopped
from dreambooth.exits import StopSignal
from dreambooth.watch import Watch

NUMBERS = range(200)


def test_results_come_in_order_and_quick_work_is_not_spoken_of() -> None:
    told: list[str] = []
    assert Watch(told.append).each(lambda number: -number, NUMBERS, "counting") == [-number for number in NUMBERS]
    assert told == []


def test_slow_work_is_told_of_on_the_way_and_not_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_TELL_SECONDS", 0.0)
    told: list[str] = []
    assert list(Watch(told.append).over("abc", 3000, "counting")) == ["a", "b", "c"]
    assert told == ["counting: 1 of 3,000", "counting: 2 of 3,000", "counting: 3 of 3,000"]
    assert list(Watch(told.append).over("d", 1, "counting")) == ["d"]
    assert len(told) == 3


def test_sigterm_ends_it_without_the_rest() -> None:
    stop = StopSignal()
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        stop.set()
        time.sleep(0.02)

    with pytest.raises(Stopped):
        Watch(stop=stop).each(work, NUMBERS, "counting")
    assert len(done) < 100


def test_an_error_ends_it_without_the_rest() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        time.sleep(0.02)
        raise KeyError(number)

    with pytest.raises(KeyError, match="0"):
        Watch().each(work, NUMBERS, "counting")
    assert len(done) < 100
