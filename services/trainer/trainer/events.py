"""The records a run writes while it works, and how those of several attempts make one curve. Pure.

    sessions/<session>/runs/<run>/events/<attempt, 2 digits or more>-<number, 8 digits>.jsonl      a few JSON lines each

The program of the Job writes them, `event_reader` finds them, `watching` shows them.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

STAGES = ("text_encoder", "unet")
LEVELS = ("info", "warning", "error")
_FILE = re.compile(r"(\d{2,})-(\d{8})\.jsonl")
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class ProgressRecord:
    """One optimizer update. step counts from 1 in its stage; eta_seconds is that of the whole run.

    learning_rate: of the UNet where it trains, else of the text encoder. The last four are 0 where they are unknown, as in
    records of older programs; model_flops_utilization is a share, 0 to 1.
    """

    stage: str
    step: int
    num_steps: int
    loss: float
    smoothed_loss: float
    learning_rate: float
    images_per_second: float
    eta_seconds: float
    time: datetime
    text_encoder_learning_rate: float = 0.0
    step_seconds: float = 0.0
    data_wait_seconds: float = 0.0
    model_flops_utilization: float = 0.0

    @property
    def position(self) -> tuple[int, int]:
        """Place in the run: later steps compare greater, whatever their attempt."""
        return STAGES.index(self.stage), self.step


@dataclass(frozen=True)
class SampleRecord:
    """A sample image drawn after a step; object is its key in the bucket."""

    stage: str
    step: int
    prompt: str
    object: str
    time: datetime

    @property
    def position(self) -> tuple[int, int]:
        """Place in the run, as of ProgressRecord."""
        return STAGES.index(self.stage), self.step


@dataclass(frozen=True)
class ResumePointRecord:
    """A resume point is complete. object: its key prefix. stall_seconds: how long training stood still for it."""

    stage: str
    step: int
    object: str
    size_bytes: int
    stall_seconds: float
    time: datetime


@dataclass(frozen=True)
class MessageRecord:
    """A line a person should read. level is one of LEVELS."""

    text: str
    level: str
    time: datetime


@dataclass(frozen=True)
class FinishedRecord:
    """The checkpoint is published."""

    checkpoint: str
    time: datetime


Record = ProgressRecord | SampleRecord | ResumePointRecord | MessageRecord | FinishedRecord

_NUMBERS = ("loss", "smoothed_loss", "learning_rate", "images_per_second", "eta_seconds")
_NEWER_NUMBERS = ("text_encoder_learning_rate", "step_seconds", "data_wait_seconds", "model_flops_utilization")


def order_of(file_name: str) -> tuple[int, ...]:
    """(attempt, number) of an events file: greater was written later. Empty if the name is not that of one."""
    match = _FILE.fullmatch(file_name)
    return (int(match[1]), int(match[2])) if match else ()


def prefix_of(attempt: int) -> str:
    """What the names of an attempt's files begin with."""
    return f"{attempt:02d}-"


def parse(data: bytes, key: str) -> list[Record]:
    """The records of one object. A line that cannot be read becomes a warning; records of unknown kind are left out."""
    records: list[Record] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = _record(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            text = f"line {number} of {key} is no record: {type(error).__name__} {error}"
            records.append(MessageRecord(text, "warning", _EPOCH))
            continue
        if record is not None:
            records.append(record)
    return records


def _record(fields: dict[str, Any]) -> Record | None:
    time = datetime.fromisoformat(fields["time"])
    match fields["kind"]:
        case "progress":
            stage, step = _place(fields)
            values = {name: float(fields[name]) for name in _NUMBERS}
            values |= {name: float(fields.get(name, 0.0)) for name in _NEWER_NUMBERS}
            return ProgressRecord(stage, step, int(fields["num_steps"]), time=time, **values)
        case "sample":
            return SampleRecord(*_place(fields), str(fields["prompt"]), str(fields["object"]), time)
        case "resume_point":
            size_bytes, stall_seconds = int(fields["size_bytes"]), float(fields["stall_seconds"])
            return ResumePointRecord(*_place(fields), str(fields["object"]), size_bytes, stall_seconds, time)
        case "message":
            level = fields.get("level", "info")
            return MessageRecord(str(fields["text"]), level if level in LEVELS else "info", time)
        case "finished":
            return FinishedRecord(str(fields["checkpoint"]), time)
        case _:  # written by a newer program
            return None


def _place(fields: dict[str, Any]) -> tuple[str, int]:
    if fields["stage"] not in STAGES:
        raise ValueError(f"stage {fields['stage']!r}, expected one of {', '.join(STAGES)}")
    return fields["stage"], int(fields["step"])


def merged(attempts: Iterable[tuple[int, Record]]) -> list[Record]:
    """One curve from the records of all attempts, given in the order they were written.

    An attempt that starts again at a step supersedes what earlier attempts recorded from that step on: steps and samples.
    Messages and resume points stay, for they happened.
    """
    known = list(attempts)
    starts: dict[int, tuple[int, int]] = {}
    for attempt, record in known:
        if isinstance(record, ProgressRecord):
            starts.setdefault(attempt, record.position)

    def superseded(attempt: int, record: Record) -> bool:
        if not isinstance(record, ProgressRecord | SampleRecord):
            return False
        return any(later > attempt and start <= record.position for later, start in starts.items())

    return [record for attempt, record in known if not superseded(attempt, record)]


@dataclass
class Shown:
    """What one watcher has seen, so that a repeated attempt shows it no step twice."""

    position: tuple[int, int] = (-1, 0)
    objects: set[str] = field(default_factory=set)

    def news(self, batch: Sequence[tuple[int, Record]]) -> list[Record]:
        """The records of a batch that are new to the watcher, in order; they count as seen from now on."""
        return [record for record in merged(batch) if self._is_new(record)]

    def _is_new(self, record: Record) -> bool:
        if isinstance(record, ProgressRecord):
            if record.position <= self.position:
                return False
            self.position = record.position
        if isinstance(record, SampleRecord | ResumePointRecord):
            if record.object in self.objects:
                return False
            self.objects.add(record.object)
        return True
