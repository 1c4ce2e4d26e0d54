"""What a whole run costs above its bare loop: records, resume points, samples, against a real store on this machine.

`training.run` is timed from the progress record of step N to that of the last step, so that loading and publishing stay
out and every interval of N steps holds one resume point: its copy, and the upload of the one before.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dreambooth import training
from dreambooth.exits import StopSignal
from dreambooth.lease import Lease
from dreambooth.order import Order
from dreambooth.records import Records

from bench import comparing
from bench.comparing import Spread
from bench.workshop import PROMPT, RATE, BareLoop, Workshop

# What a run does besides training; the bench compares each with the bare loop.
_EXTRAS: Mapping[str, Mapping[str, Any]] = {
    "records": {},
    "records and resume points": {"resume_point_every_steps": 1},
    "records, resume points and samples": {
        "resume_point_every_steps": 1,
        "sample_every_steps": 1,
        "sample_prompts": [PROMPT],
    },
}


def measure(workshop: Workshop, batch_size: int, rounds: int, every: int, intervals: int) -> None:
    """Tell the overhead of each kind of run. every: N. intervals: of N steps, timed in each run of each round."""
    bare = BareLoop.of(workshop.order(f"bare-{batch_size}", batch_size=batch_size))
    bare.advance(every)
    found: dict[str, list[float]] = {name: [] for name in _EXTRAS}
    for number in range(rounds):
        for kind, (name, extras) in enumerate(_EXTRAS.items()):
            # Before and after, so that a machine that slowly gets busier hits both.
            before = comparing.seconds_of(lambda: bare.advance(every * intervals // 2))
            whole = _seconds_of_run(
                workshop.order(
                    f"whole-{batch_size}-{number}-{kind}",
                    batch_size=batch_size,
                    unet={"steps": every * (intervals + 1), "learning_rate": RATE, "schedule": "constant"},
                    **{field: every if value == 1 else value for field, value in extras.items()},
                ),
                every,
            )
            after = comparing.seconds_of(lambda: bare.advance(every * intervals - every * intervals // 2))
            found[name].append(whole / (before + after) - 1)
    for name, shares in found.items():
        _tell(name, batch_size, shares, every)


class _TimedRecords(Records):
    """Notes when each step is reported."""

    def __init__(self, order: Order) -> None:
        super().__init__(order.store, f"{order.run}/")
        self.times: list[float] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """As the records do."""
        if record["kind"] == "progress":
            self.times.append(time.perf_counter())
        super().add(record)


def _seconds_of_run(order: Order, every: int) -> float:
    """From the end of step `every` to the end of the last step."""
    stop = StopSignal()
    with Lease.acquire(order.store, f"{order.run}/", stop) as lease:
        records = _TimedRecords(order)
        try:
            training.run(replace(order, records=records, lease=lease), stop)
        finally:
            records.close(60)
    return records.times[-1] - records.times[every - 1]


def _tell(name: str, batch_size: int, shares: Sequence[float], every: int) -> None:
    overhead = Spread.of(shares)
    percent = Spread(*(100 * value for value in (overhead.median, overhead.low, overhead.high)))
    comparing.tell(
        "train_overhead",
        f"{name}, batch {batch_size}, N = {every}: {percent} % above the bare loop",
        what=name,
        batch_size=batch_size,
        every_steps=every,
        overhead=overhead,
    )
