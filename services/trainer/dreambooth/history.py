"""What earlier attempts of a run recorded up to the resume point: the beginning of this attempt's curves.

An attempt records every step it makes. Where several made the same step the last one counts, and what lies behind the
resume point is going to be made again.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from artifacts.errors import NotFound
from artifacts.store import ObjectStore

from dreambooth.recipe import TEXT_ENCODER, UNET
from dreambooth.resume_point import Position

_log = logging.getLogger(__name__)

_STAGES = (TEXT_ENCODER, UNET)
_FILE: Final = re.compile(r"(\d+)-(\d+)\.jsonl")
Line = Mapping[str, Any]


def files(store: ObjectStore, events_prefix: str) -> list[tuple[int, str]]:
    """(attempt, key) of every object with events, in the order they were written.

    The store lists by text, and there "100-" comes before "99-". What has another kind of name is left out.
    """
    names = ((_FILE.fullmatch(found.key[len(events_prefix) :]), found.key) for found in store.list(events_prefix))
    numbered = sorted((int(name[1]), int(name[2]), key) for name, key in names if name)
    return [(attempt, key) for attempt, _, key in numbered]


def until(store: ObjectStore, events_prefix: str, position: Position | None) -> list[Line]:
    """Progress and samples up to the position in order, each step once; nothing without a position."""
    if position is None:
        return []
    last = _STAGES.index(position.stage), position.step
    progress: dict[tuple[int, int], Line] = {}
    drawn: dict[str, Line] = {}
    for _, key in files(store, events_prefix):
        for line in store.get(key).splitlines():
            record = json.loads(line)
            if record["kind"] == "progress" and _place(record) <= last:
                progress[_place(record)] = record
            elif record["kind"] == "sample" and _place(record) <= last:
                drawn[record["object"]] = record
    return [progress[place] for place in sorted(progress)] + sorted(drawn.values(), key=_place)


def pictures(store: ObjectStore, lines: Iterable[Line]) -> dict[str, bytes]:
    """The sample images that these lines speak of, by key. One that was deleted by hand is left out: it is only shown."""
    found = {}
    for line in lines:
        if line["kind"] == "sample":
            try:
                found[line["object"]] = store.get(line["object"])
            except NotFound:
                _log.info("the sample image %s was deleted: the curves go on without it", line["object"])
    return found


def _place(record: Line) -> tuple[int, int]:
    return _STAGES.index(record["stage"]), int(record["step"])
