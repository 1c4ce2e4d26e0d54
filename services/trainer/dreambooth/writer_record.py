"""`<run>/writer.json`: who may write a run, and which resume points are published.

    {
      "schema": 1,
      "token": 3,           fencing token: one more for each new holder, never used twice
      "nonce": "9f…",       drawn by each holder: tells its records from all others, also of the same token
      "renewal": 17,        one more in each record of a holder: no two records are equal, and so no two ETags
      "holder": {"host": …, "boot_id": …, "pid_namespace": …, "pid": …, "start_ticks": …},
      "seconds": 30.0,      a record unchanged for so long was left by a dead holder
      "released": false,    whether the holder gave it back
      "points": [{"name": "3-1-0000150", "stage": "unet", "step": 150, "sha256": "…of its manifest.json"}, …],
      "damaged": ["2-1-0000100"]
    }

`points` are in order of publishing, the newest last. `damaged` names points that were found damaged and are kept.
`lease` alone writes this.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from artifacts import records
from artifacts.errors import ManifestInvalid

from dreambooth.holder import Holder

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_SECONDS = 3600.0
_MAX_PID = 2**31
_ADVICE = "if no process of this run is at work, delete it: the resume points are found without it"


@dataclass(frozen=True)
class ListedPoint:
    """A published resume point. name: its folder. sha256: of its manifest.json, 64 hex digits."""

    name: str
    stage: str
    step: int
    sha256: str


@dataclass(frozen=True)
class WriterRecord:
    """The content of writer.json. seconds: more than 0, at most an hour."""

    token: int
    nonce: str
    renewal: int
    holder: Holder
    seconds: float
    released: bool = False
    points: tuple[ListedPoint, ...] = ()
    damaged: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The bytes of writer.json."""
        return records.encode({"schema": records.SCHEMA} | asdict(self))


def decode(key: str, data: bytes) -> WriterRecord:
    """Read writer.json. Raises ManifestInvalid with every problem and what to do."""
    try:
        return _decode(key, data)
    except ManifestInvalid as error:
        raise ManifestInvalid(key, (*error.problems, _ADVICE)) from error


def _decode(key: str, data: bytes) -> WriterRecord:
    reader = records.RecordReader(key, data)
    fields = json.loads(data)  # an object: the reader has seen to it
    seconds, released = fields.get("seconds"), fields.get("released")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds <= _MAX_SECONDS:
        reader.problem(f"seconds: {seconds!r} is not a time between 0 and {_MAX_SECONDS:g}")
    if not isinstance(released, bool):
        reader.problem(f"released: true or false expected, found {released!r}")
    record = WriterRecord(
        token=reader.integer("token"),
        nonce=reader.text("nonce"),
        renewal=reader.integer("renewal"),
        holder=_holder(reader),
        seconds=seconds,
        released=released,
        points=tuple(_points(reader)),
        damaged=reader.texts("damaged"),
    )
    reader.finish()
    return record


def _holder(reader: records.RecordReader) -> Holder:
    found = reader.mapping("holder")
    texts: dict[str, Any] = {name: found.get(name) for name in ("host", "boot_id", "pid_namespace")}
    pid: Any = found.get("pid")
    start_ticks: Any = found.get("start_ticks")
    for name, text in texts.items():
        if not isinstance(text, str):
            reader.problem(f"holder.{name}: a string expected, found {text!r}")
    if not _is_whole(pid) or not 0 < pid < _MAX_PID:
        reader.problem(f"holder.pid: {pid!r} is not a process id")
    if not _is_whole(start_ticks):
        reader.problem(f"holder.start_ticks: a whole number expected, found {start_ticks!r}")
    return Holder(**texts, pid=pid, start_ticks=start_ticks)  # `finish` raises if one of them is wrong


def _points(reader: records.RecordReader) -> Iterator[ListedPoint]:
    for index, item in enumerate(reader.items("points", required=True)):
        if isinstance(item, dict) and _is_point(item):
            yield ListedPoint(item["name"], item["stage"], item["step"], item["sha256"])
        else:
            reader.problem(f"points[{index}]: name, stage, step and sha256 expected, found {item!r}")


def _is_point(item: dict[str, Any]) -> bool:
    name, stage, step, sha256 = (item.get(field) for field in ("name", "stage", "step", "sha256"))
    return (
        isinstance(name, str)
        and isinstance(stage, str)
        and _is_whole(step)
        and isinstance(sha256, str)
        and bool(_SHA256.fullmatch(sha256))
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
