"""The curve of a run as a client keeps it: every step once, by stage, and the sparkline of its newest part. Pure.

`run_view` shows it while it grows; `commands.runs` reads it whole, for its tables and for `plot_terminal` and `plot_png`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from statistics import fmean, median

from darkroom.trainer.v1 import training_pb2 as pb

SPARK_WIDTH = 16
# The newest points that a sparkline tells of; each of its characters is the mean of up to 20 of them.
SPARK_POINTS = 320
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Point:
    """One update. loss: mean squared error of the step; smoothed: its exponential mean; time: seconds since 1970."""

    step: int
    loss: float
    smoothed: float
    learning_rate: float
    images_per_second: float
    time: float


@dataclass
class StageCurve:
    """The updates of one stage, by step."""

    stage: int
    num_steps: int
    by_step: dict[int, Point] = field(default_factory=dict)

    @property
    def points(self) -> list[Point]:
        """All updates in the order of their steps. There is at least one."""
        return [self.by_step[step] for step in sorted(self.by_step)]

    @property
    def images_per_second(self) -> float:
        """The median, which a slow first step does not bend."""
        return median(point.images_per_second for point in self.by_step.values())

    @property
    def seconds(self) -> float:
        """From the end of the first update to that of the last one."""
        times = [point.time for point in self.by_step.values()]
        return max(times) - min(times)

    def spark(self) -> str:
        """The sparkline of the newest smoothed losses, SPARK_WIDTH characters wide."""
        return sparkline([point.smoothed for point in self.points[-SPARK_POINTS:]], SPARK_WIDTH)


@dataclass
class Curve:
    """The stages of one run, in the order in which they began."""

    stages: dict[int, StageCurve] = field(default_factory=dict)

    def has(self, progress: pb.Progress) -> bool:
        """Whether this step is known already."""
        return progress.stage in self.stages and progress.step in self.stages[progress.stage].by_step

    def add(self, progress: pb.Progress) -> StageCurve:
        """Take a step in; one that came before is replaced. Returns its stage."""
        stage = self.stages.setdefault(progress.stage, StageCurve(progress.stage, progress.num_steps))
        stage.num_steps = progress.num_steps
        stage.by_step[progress.step] = Point(
            progress.step,
            progress.loss,
            progress.smoothed_loss,
            progress.learning_rate,
            progress.images_per_second,
            progress.time.seconds + progress.time.nanos / 1e9,
        )
        return stage

    def losses(self) -> list[float]:
        """The loss of each step, stage after stage."""
        return [point.loss for stage in self.stages.values() for point in stage.points]


@dataclass(frozen=True)
class Difference:
    """The first step at which two runs part. A loss is None where that run has no such step."""

    stage: int
    step: int
    losses: tuple[float | None, float | None]


def compare(one: Curve, other: Curve) -> tuple[int, Difference | None]:
    """How many steps from the beginning have the very same loss (no tolerance), and where the runs part, if they do."""
    equal = 0
    for left, right in zip_longest(_steps(one), _steps(other)):
        if left and right and left[:2] == right[:2] and _same(left[2], right[2]):
            equal += 1
            continue
        # Where one run has a step that the other lacks, the earlier one is where they part.
        first = min((each for each in (left, right) if each), key=lambda each: (_order(one, other, each[0]), each[1]))
        losses = tuple(each[2] if each and each[:2] == first[:2] else None for each in (left, right))
        return equal, Difference(first[0], first[1], (losses[0], losses[1]))
    return equal, None


def _steps(curve: Curve) -> Iterable[tuple[int, int, float]]:
    return ((stage.stage, point.step, point.loss) for stage in curve.stages.values() for point in stage.points)


def _order(one: Curve, other: Curve, stage: int) -> int:
    return list({**one.stages, **other.stages}).index(stage)


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def squeezed(values: Sequence[float], count: int) -> list[float]:
    """At most `count` values, each the mean of equally many neighbours (one more or less); fewer are left as they are."""
    if len(values) <= count:
        return list(values)
    cuts = [index * len(values) // count for index in range(count + 1)]
    return [fmean(values[start:end]) for start, end in pairwise(cuts)]


def sparkline(values: Sequence[float], width: int) -> str:
    """`width` characters: block heights from the lowest to the highest value, newest at the right end of what is there.

    A value that is no finite number is an "×". Fewer values than characters are filled up with blanks.

    >>> sparkline([1, 2, 3], 4)
    '▁▅█ '
    """
    shown = squeezed(values, width)
    finite = [value for value in shown if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join(_block(value, low, high) for value in shown).ljust(width)


def _block(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return "×"
    if high == low:
        return _BLOCKS[0]
    return _BLOCKS[round((value - low) / (high - low) * (len(_BLOCKS) - 1))]
