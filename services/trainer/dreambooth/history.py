"""What earlier attempts of a run recorded up to the resume point: the beginning of this attempt's curves.

An attempt records every step it makes. Where several made the same step the last one counts, and what lies behind the
resume point is going to be made again.
"""

import json
from collections.abc import Mapping
from typing import Any

from artifacts.store import ObjectStore

from dreambooth.recipe import TEXT_ENCODER, UNET
from dreambooth.resume_point import Position

_STAGES = (TEXT_ENCODER, UNET)
Line = Mapping[str, Any]


def until(store: ObjectStore, events_prefix: str, position: Position | None) -> list[Line]:
    """Progress and samples up to the position in order, each step once; nothing without a position."""
    if position is None:
        return []
    last = _STAGES.index(position.stage), position.step
    progress: dict[tuple[int, int], Line] = {}
    drawn: dict[str, Line] = {}
    for found in store.list(events_prefix):
        for line in store.get(found.key).splitlines():
            record = json.loads(line)
            if record["kind"] == "progress" and _place(record) <= last:
                progress[_place(record)] = record
            elif record["kind"] == "sample" and _place(record) <= last:
                drawn[record["object"]] = record
    return [progress[place] for place in sorted(progress)] + sorted(drawn.values(), key=_place)


def _place(record: Line) -> tuple[int, int]:
    return _STAGES.index(record["stage"]), int(record["step"])
