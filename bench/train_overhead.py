"""What a whole run costs above its bare loop: records, resume points, samples, against a real store on this machine.

In every interval of N steps `training.run` copies and uploads one resume point and draws one sample. Shortly before the
end of each, when the point is long in the store, it is held and the bare loop takes its turn for N steps. So what is compared is
seconds apart, and loading, the start of the helper process and publishing stay out.

Two overheads are told. That in wall-clock time contains what the store itself computes on the same cores. That in
processor time is of the process that trains alone, without its helper: what remains when both have cores of their own.
"""

import itertools
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

CASES = ((1, 3, 8), (4, 2, 5))
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

    @property
    def half(self) -> "_Cost":
        return _Cost(self.wall / 2, self.cpu / 2)

    def __sub__(self, other: "_Cost") -> "_Cost":
        return _Cost(self.wall - other.wall, self.cpu - other.cpu)


def measure(workshop: Workshop, batch_size: int, rounds: int, every: int, warm: int, timed: int) -> None:
    """Tell the overhead of each kind of run. every: N. warm, timed: intervals of N steps in each run of each round."""
    bare = BareLoop.of(workshop.order(f"bare-{batch_size}", batch_size=batch_size))
    found: dict[str, list[tuple[_Cost, _Cost]]] = {name: [] for name in _EXTRAS}
    for number in range(rounds):
        for kind, (name, extras) in enumerate(_EXTRAS.items()):
            changes: dict[str, Any] = {field: every if value == _EVERY else value for field, value in extras.items()}
            changes["unet"] = {"steps": every * (warm + timed), "learning_rate": RATE, "schedule": "constant"}
            order = workshop.order(f"whole-{batch_size}-{number}-{kind}", batch_size=batch_size, **changes)
            found[name] += _run(order, bare, every)[warm - 1 :]
    for name, costs in found.items():
        _tell(name, batch_size, every, costs)


class _Turns(Records):
    """Holds the training in every interval, lets the bare loop make as many steps, and notes what both have cost."""

    def __init__(self, order: Order, bare: BareLoop, every: int) -> None:
        super().__init__(order.store, f"{order.run}/")
        self._bare = bare
        self._every = every
        self._resumed: _Cost | None = None
        self._whole: list[_Cost] = []
        self._turns: list[_Cost] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """As the records do; called by the thread that trains."""
        super().add(record)
        if record["kind"] == "progress" and record["step"] % self._every == self._every * 9 // 10:
            held = _Cost.now()
            if self._resumed is not None:
                self._whole.append(held - self._resumed)
            self._bare.advance(self._every)
            self._resumed = _Cost.now()
            self._turns.append(self._resumed - held)

    @property
    def costs(self) -> list[tuple[_Cost, _Cost]]:
        """Of each interval of the run, and the mean of the two turns of the bare loop around it."""
        means = [(before + after).half for before, after in itertools.pairwise(self._turns)]
        return list(zip(self._whole, means, strict=True))


def _run(order: Order, bare: BareLoop, every: int) -> list[tuple[_Cost, _Cost]]:
    stop = StopSignal()
    with Lease.acquire(order.store, f"{order.run}/", stop) as lease:
        records = _Turns(order, bare, every)
        try:
            training.run(replace(order, records=records, lease=lease), stop)
        finally:
            records.close(_CLOSE_SECONDS)
    return records.costs


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
        intervals=len(costs),
    )
