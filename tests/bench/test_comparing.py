"""Ratios of blocks that took turns."""

import json

import pytest

from bench import comparing
from bench.comparing import Spread


def test_ways_take_turns_after_a_block_that_does_not_count() -> None:
    done: list[str] = []
    seconds = comparing.in_turns({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 3)
    assert done == ["a", "b"] * 4
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3}


def test_a_slow_moment_of_the_machine_leaves_the_median_alone() -> None:
    ratio = comparing.ratios([2.0, 20.0, 2.0, 2.0, 2.0], [1.0, 10.0, 1.0, 4.0, 1.0])
    assert ratio == Spread(2.0, 2.0, 2.0)
    assert comparing.ratios([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5) == Spread(3.0, 2.0, 4.0)


def test_blocks_without_a_partner_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        comparing.ratios([1.0, 2.0], [1.0])


def test_one_json_line_for_programs_and_a_sentence_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    comparing.tell("speed", "twice as fast", ratio=Spread.of([2.0]), seconds=1 / 3, steps=7)
    out, err = capsys.readouterr()
    line = json.loads(out)
    assert line.pop("load") >= 0
    assert line.pop("threads") >= 1
    assert line == {
        "bench": "speed",
        "ratio": {"median": 2.0, "low": 2.0, "high": 2.0},
        "seconds": 0.3333,
        "steps": 7,
    }
    assert err == "speed: twice as fast\n"
