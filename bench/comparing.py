"""Comparing two ways of doing the same work on a machine that has other work too.

Both take turns in short blocks, so that whatever slows the machine down hits both. The answer is the median of the
ratios of neighbouring blocks, with the quartiles as its spread. Results go to stdout as one JSON line each, for
programs, and to stderr as a sentence, for people.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Spread:
    """median, and the quartiles below and above it; all three are equal if there is one value."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        if len(values) == 1:
            return Spread(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(median, low, high)

    @property
    def percent(self) -> str:
        """Of shares, where 0.05 is 5 %."""
        return f"{self.median:.1%} (quartiles {self.low:.1%} to {self.high:.1%})"

    def __str__(self) -> str:
        return f"{self.median:.2f} (quartiles {self.low:.2f} to {self.high:.2f})"


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(ways: Mapping[str, Callable[[], object]], blocks: int) -> dict[str, list[float]]:
    """Seconds of each block of each way. Every way runs one block to get warm, then `blocks` that count."""
    for work in ways.values():
        work()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(blocks):
        for name, work in ways.items():
            found[name].append(seconds_of(work))
    return found


def ratios(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """How many times as long the first took as the second, block by block."""
    return Spread.of([one / other for one, other in zip(slower, faster, strict=True)])


def tell(bench: str, sentence: str, **found: Any) -> None:
    """One result. `found` becomes the JSON line's fields; a Spread becomes {"median", "low", "high"}.

    Beside it stand torch's threads and the machine's load average of the last minute, in which this process counts too.
    """
    print(f"{bench}: {sentence}", file=sys.stderr, flush=True)
    fields = {name: _plain(value) for name, value in found.items()}
    machine = {"threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 2)}
    print(json.dumps({"bench": bench, **fields, **machine}), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return {name: round(getattr(value, name), 4) for name in ("median", "low", "high")}
    return round(value, 4) if isinstance(value, float) else value
