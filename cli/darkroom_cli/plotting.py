"""What the pictures of curves share: where each stage lies on the axis of steps, the range of losses, round ticks. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from darkroom_cli.curves import Curve


@dataclass(frozen=True)
class Line:
    """One run in a picture."""

    name: str
    curve: Curve


@dataclass(frozen=True)
class Segment:
    """The part of the axis that belongs to one stage: steps 1 to num_steps lie at start + 1 to start + num_steps."""

    stage: int
    start: int
    num_steps: int


def segments(lines: Sequence[Line]) -> list[Segment]:
    """The stages one behind the other, each as long as its longest run, so that equal steps share a place."""
    lengths: dict[int, int] = {}
    for line in lines:
        for stage in line.curve.stages.values():
            longest = max(stage.num_steps, max(stage.by_step))
            lengths[stage.stage] = max(lengths.get(stage.stage, 0), longest)
    found, start = [], 0
    for stage_number, length in lengths.items():
        found.append(Segment(stage_number, start, length))
        start += length
    return found


def polylines(line: Line, parts: Sequence[Segment], smoothed: bool) -> list[list[tuple[float, float]]]:
    """(place on the axis, loss) of each stage of one run; where a loss is no finite number the line is cut."""
    found: list[list[tuple[float, float]]] = []
    for part in parts:
        if part.stage not in line.curve.stages:
            continue
        current: list[tuple[float, float]] = []
        for point in line.curve.stages[part.stage].points:
            value = point.smoothed if smoothed else point.loss
            if math.isfinite(value):
                current.append((part.start + point.step, value))
            elif current:
                found.append(current)
                current = []
        if current:
            found.append(current)
    return found


def value_range(lines: Sequence[Line], parts: Sequence[Segment], with_raw: bool) -> tuple[float, float]:
    """The lowest and the highest loss to show, never equal.

    All smoothed losses fit; of the raw ones, if wanted, all but the outermost percent at each end: a single spike must
    not flatten the rest.
    """
    smooth = [value for line in lines for path in polylines(line, parts, True) for _, value in path]
    raw = sorted(value for line in lines for path in polylines(line, parts, False) for _, value in path)
    if with_raw and raw:
        smooth += [raw[len(raw) // 100], raw[-1 - len(raw) // 100]]
    low, high = min(smooth, default=0.0), max(smooth, default=1.0)
    if low == high:
        margin = abs(low) / 10 or 1.0
        return low - margin, high + margin
    return low, high


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round values (1, 2 or 5 times a power of ten apart) from low to high, both included if round."""
    least = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(least))
    distance = next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))
    first, last = math.ceil(low / distance - 1e-9), math.floor(high / distance + 1e-9)
    return [index * distance for index in range(first, last + 1)][:most]


def tick_labels(values: Sequence[float]) -> list[str]:
    """The values with as many decimals as tell them apart, none cut off."""
    if not values:
        return []
    distance = min((b - a for a, b in pairwise(values)), default=abs(values[0]) or 1.0)
    decimals = max(0, -math.floor(math.log10(distance) + 1e-9))
    return [f"{value:.{decimals}f}" for value in values]
