"""One resume point: where training stood, what it consists of, and its manifest.json.

    {
      "schema": 1,
      "stage": "unet", "stage_index": 1, "step": 150,
      "token": 3,                      the fencing token of the process that wrote it
      "time": "2026-01-31T12:00:00.000000Z",
      "about": {…},                    what the program says of it: versions, identity, losses
      "files": [{"path": "unet.safetensors", "size_bytes": 123, "sha256": "…"}, …]
    }

`resume_points` reads and writes these; the rest of the program sees `Position` and `ResumePoint`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from artifacts import names, records
from artifacts.errors import InvalidName
from artifacts.manifest import FileEntry

POINTS_FOLDER = "resume_points/"  # in the folder of the run
MANIFEST = "manifest.json"
_NAME = re.compile(r"(\d+)-(\d+)-(\d{7,})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Position:
    """A moment of training. stage_index: of the stage in the recipe's order, from 0. step: steps done in the stage."""

    stage: str
    stage_index: int
    step: int

    def __str__(self) -> str:
        return f"step {self.step} of stage {self.stage}"


@dataclass(frozen=True)
class ResumePoint:
    """The full state of training at one position. about: a JSON object."""

    position: Position
    token: int
    time: datetime
    about: Mapping[str, Any]
    files: tuple[FileEntry, ...]

    @property
    def name(self) -> str:
        """Its folder."""
        return name_of(self.token, self.position)

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(entry.size_bytes for entry in self.files)

    def encode(self) -> bytes:
        """The bytes of manifest.json. Raises ValueError or TypeError for an `about` that JSON cannot hold."""
        record = {"schema": records.SCHEMA} | asdict(self.position)
        record |= {"token": self.token, "time": records.rfc3339(self.time), "about": dict(self.about)}
        return records.encode(record | {"files": [asdict(entry) for entry in self.files]})


def name_of(token: int, position: Position) -> str:
    """The folder of the point that holder `token` writes at `position`."""
    return f"{token}-{position.stage_index}-{position.step:07d}"


def order_of(name: str) -> tuple[int, ...]:
    """(token, stage index, step) of a folder: greater is newer. Empty for a folder that is no resume point."""
    found = _NAME.fullmatch(name)
    return tuple(int(number) for number in found.groups()) if found else ()


def decode(key: str, name: str, data: bytes) -> ResumePoint:
    """Read manifest.json of the folder `name`. Raises ManifestInvalid with every problem."""
    reader = records.RecordReader(key, data)
    point = ResumePoint(
        position=Position(reader.text("stage"), reader.integer("stage_index"), reader.integer("step")),
        token=reader.integer("token"),
        time=reader.time("time"),
        about=reader.mapping("about"),
        files=tuple(_files(reader)),
    )
    reader.finish()
    if point.name != name:
        reader.problem(f"it describes {point.name!r}, but the folder is {name!r}")
    reader.finish()
    return point


def _files(reader: records.RecordReader) -> Iterator[FileEntry]:
    for index, item in enumerate(reader.items("files", required=True)):
        problem = _problem(item)
        if problem:
            reader.problem(f"files[{index}]: {problem}")
        else:
            yield FileEntry(item["path"], item["size_bytes"], item["sha256"])


def _problem(item: Any) -> str:
    if not isinstance(item, dict):
        return f"object expected, found {type(item).__name__}"
    path, size_bytes, sha256 = item.get("path"), item.get("size_bytes"), item.get("sha256")
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or size_bytes < 0:
        return f"size_bytes: {size_bytes!r} is not a size"
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        return f"sha256: {sha256!r} is not 64 hex digits"
    if not isinstance(path, str):
        return "path: missing or not a string"
    try:
        names.file_path(path)  # a download joins it to a local folder
    except InvalidName as error:
        return str(error)
    return ""
