"""Ctrl-C, `kill` and a closed terminal stop a system; a second one does not break off the stopping."""

import os
import signal
from collections.abc import Iterator

import pytest
from darkroom_cli.launcher import signals

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    assert {number: signal.getsignal(number) for number in STOPS} == before


@pytest.mark.parametrize("number", STOPS)
def test_each_interrupts(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), signals.interrupting():
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOPS)
def test_none_interrupts_the_stopping(number: signal.Signals) -> None:
    with signals.interrupting(), signals.ignored():
        os.kill(os.getpid(), number)


def test_nohup_is_heard() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.interrupting():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
