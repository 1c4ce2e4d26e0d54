"""What a whole run costs above its bare loop: records, resume points, samples, against a real store on this machine.

`training.run` is timed from the progress record of a step to that of the last step, so that loading, the start of the
helper process and publishing stay out, and every interval of N steps holds the copy and the upload of one resume point.

Two overheads are told. That in wall-clock time contains what the store itself computes on the same cores. That in
processor time is of the trainer's process alone: what remains when the store is another machine.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dreambooth import training
from dreambooth.exits import StopSignal
from dreambooth.lease import Lease
from dreambooth.order import Order
from dreambooth.records import Records

from bench import comparing
from bench.comparing import Spread
from bench.workshop import PROMPT, RATE, BareLoop, Workshop

CASES = ((1, 3, 4), (4, 2, 3))
"""Batch size, and intervals of N steps in each run: those that get it warm, and those that are timed. At batch 1 a step is
shortest: what surrounds it weighs most."""

_EVERY = "N"
_CLOSE_SECONDS = 60.0
# What a run does besides training; the bench compares each with the bare loop.
_EXTRAS: Mapping[str, Mapping[str, Any]] = {
    "records": {},
    "records and resume points": {"resume_point_every_steps": _EVERY},
    "records, resume points and samples": {
        "resume_point_every_steps": _EVERY,
        "sample_every_steps": _EVERY,
        "sample_prompts": [PROMPT],
    },
}


@dataclass(frozen=True)
class _Cost:
    """Seconds on the clock, and of this process on all cores."""

    wall: float
    cpu: float

    @staticmethod
    def now() -> "_Cost":
        return _Cost(time.perf_counter(), time.process_time())

    def __add__(self, other: "_Cost") -> "_Cost":
        return _Cost(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: "_Cost") -> "_Cost":
        return _Cost(self.wall - other.wall, self.cpu - other.cpu)


def measure(workshop: Workshop, batch_size: int, rounds: int, every: int, warm: int, timed: int) -> None:
    """Tell the overhead of each kind of run. every: N. warm, timed: intervals of N steps in each run of each round."""
    bare = BareLoop.of(workshop.order(f"bare-{batch_size}", batch_size=batch_size))
    bare.advance(every)
    found: dict[str, list[tuple[_Cost, _Cost]]] = {name: [] for name in _EXTRAS}
    first, num_timed = every * warm, every * timed
    for number in range(rounds):
        for kind, (name, extras) in enumerate(_EXTRAS.items()):
            changes: dict[str, Any] = {field: every if value == _EVERY else value for field, value in extras.items()}
            changes["unet"] = {"steps": first + num_timed, "learning_rate": RATE, "schedule": "constant"}
            order = workshop.order(f"whole-{batch_size}-{number}-{kind}", batch_size=batch_size, **changes)
            # Half before and half after, so that a machine that slowly gets busier hits both.
            before = _cost_of_bare(bare, num_timed // 2)
            whole = _cost_of_run(order, first)
            after = _cost_of_bare(bare, num_timed - num_timed // 2)
            found[name].append((whole, before + after))
    for name, costs in found.items():
        _tell(name, batch_size, every, costs)


class _TimedRecords(Records):
    """Notes when each step is reported."""

    def __init__(self, order: Order) -> None:
        super().__init__(order.store, f"{order.run}/")
        self.steps: list[_Cost] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """As the records do."""
        if record["kind"] == "progress":
            self.steps.append(_Cost.now())
        super().add(record)


def _cost_of_bare(bare: BareLoop, steps: int) -> _Cost:
    began = _Cost.now()
    bare.advance(steps)
    return _Cost.now() - began


def _cost_of_run(order: Order, first: int) -> _Cost:
    """From the end of step `first` to the end of the last step."""
    stop = StopSignal()
    with Lease.acquire(order.store, f"{order.run}/", stop) as lease:
        records = _TimedRecords(order)
        try:
            training.run(replace(order, records=records, lease=lease), stop)
        finally:
            records.close(_CLOSE_SECONDS)
    return records.steps[-1] - records.steps[first - 1]


def _tell(name: str, batch_size: int, every: int, costs: Sequence[tuple[_Cost, _Cost]]) -> None:
    wall = Spread.of([whole.wall / bare.wall - 1 for whole, bare in costs])
    cpu = Spread.of([whole.cpu / bare.cpu - 1 for whole, bare in costs])
    comparing.tell(
        "train_overhead",
        f"{name}, batch {batch_size}, N = {every}: {wall.percent} of the time, {cpu.percent} of the trainer's own",
        what=name,
        batch_size=batch_size,
        every_steps=every,
        overhead=wall,
        overhead_cpu=cpu,
        rounds=len(costs),
    )
