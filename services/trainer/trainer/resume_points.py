"""The resume points of a run as its program publishes them. Read only; `training` lists them, `runs` asks for the newest.

    <run>/writer.json                          "points": [{"name", "stage", "step", "sha256": of manifest.json}, …], newest last
    <run>/resume_points/<name>/manifest.json   "stage", "step", "time", "about", "files": [{"path", "size_bytes", "sha256"}, …]

A point is complete once writer.json lists it, with the sha256 of its manifest. The program writes both; their formats are in
`dreambooth.writer_record` and `dreambooth.resume_point`. This reader takes what it needs and ignores the rest.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from artifacts.errors import ManifestInvalid, NotFound
from artifacts.records import RecordReader
from artifacts.store import ObjectStore

from trainer.events import STAGES

_NAME = re.compile(r"(\d+)-(\d+)-(\d{7,})")
_ADVICE = (
    "`writer.json` may be deleted if no process of this run is at work: its program then finds the points without it"
)


@dataclass(frozen=True)
class ResumePoint:
    """A complete state of a run. object: its key prefix. inexact: whether something had changed before it was written."""

    object: str
    stage: str
    step: int
    size_bytes: int
    time: datetime
    inexact: bool


@dataclass(frozen=True)
class _Listed:
    name: str
    sha256: str


def find(store: ObjectStore, run_name: str) -> list[ResumePoint]:
    """Complete resume points, newest first. Raises ManifestInvalid for damaged records."""
    return [point for listed in reversed(_listed(store, run_name)) if (point := _read(store, run_name, listed))]


def newest(store: ObjectStore, run_name: str) -> ResumePoint | None:
    """The point from which the run would go on, None if there is none: a damaged one is passed over, as its program does.

    Raises ManifestInvalid for a damaged writer.json.
    """
    for listed in reversed(_listed(store, run_name)):
        try:
            point = _read(store, run_name, listed)
        except ManifestInvalid:  # `find` tells of it, and so does the program
            continue
        if point:
            return point
    return None


def _listed(store: ObjectStore, run_name: str) -> list[_Listed]:
    key = f"{run_name}/writer.json"
    try:
        reader = RecordReader(key, store.get(key))
    except NotFound:
        return []
    points = list(_points(reader))
    try:
        reader.finish()
    except ManifestInvalid as error:
        raise ManifestInvalid(key, (*error.problems, _ADVICE)) from error
    return points


def _points(reader: RecordReader) -> Iterator[_Listed]:
    for index, item in enumerate(reader.items("points", required=True)):
        name, sha256 = (item.get("name"), item.get("sha256")) if isinstance(item, dict) else (None, None)
        if isinstance(name, str) and _NAME.fullmatch(name) and isinstance(sha256, str):
            yield _Listed(name, sha256)
        else:
            reader.problem(f"points[{index}]: name and sha256 of a resume point expected, found {item!r}")


def _read(store: ObjectStore, run_name: str, listed: _Listed) -> ResumePoint | None:
    """The point; None if it was pruned since it was listed."""
    folder = f"{run_name}/resume_points/{listed.name}/"
    key = f"{folder}manifest.json"
    try:
        data = store.get(key)
    except NotFound:
        if listed not in _listed(store, run_name):
            return None
        raise ManifestInvalid(
            key, ("it is gone, but writer.json lists it; the run goes on from an older one",)
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != listed.sha256:
        problem = f"its sha256 is {found}, expected {listed.sha256} as writer.json says"
        raise ManifestInvalid(key, (f"{problem}; the run goes on from an older one",))
    reader = RecordReader(key, data)
    point = ResumePoint(
        object=folder,
        stage=_stage(reader),
        step=reader.integer("step"),
        size_bytes=sum(_sizes(reader)),
        time=reader.time("time"),
        inexact=reader.mapping("about").get("inexact") is True,
    )
    reader.finish()
    return point


def _stage(reader: RecordReader) -> str:
    stage = reader.text("stage")
    if stage not in STAGES:
        reader.problem(f"stage: {stage!r}, expected one of {', '.join(STAGES)}")
    return stage


def _sizes(reader: RecordReader) -> Iterator[int]:
    for index, item in enumerate(reader.items("files", required=True)):
        size_bytes: Any = item.get("size_bytes") if isinstance(item, dict) else None
        if isinstance(size_bytes, int) and not isinstance(size_bytes, bool) and size_bytes >= 0:
            yield size_bytes
        else:
            reader.problem(f"files[{index}]: size_bytes expected, found {item!r}")
