"""The manifest of a checkpoint: what the weights are, where they come from, and the digest of every file.

`checkpoints` writes it last and reads it first; services read its fields.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from artifacts import names, records
from artifacts.errors import InvalidName

_SHA256 = re.compile(r"[0-9a-f]{64}")
_WRITER = re.compile(r"[a-z0-9]{0,32}")


@dataclass(frozen=True)
class FileEntry:
    """One file: path inside the checkpoint, size, and sha256 as 64 hex digits."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything known about one published, immutable checkpoint.

    format: "diffusers" | "safetensors" | "ckpt". architecture: "sd15", ... kind: "base" | "dreambooth" | "lora" |
    "controlnet" | "vae" ... precision: "fp32" | "fp16" | "bf16". prediction_type: "epsilon" | "v_prediction".
    resolution: pixels per side that the weights were trained for, 0 if it does not apply. base_model: registry name.
    parents: ids of the checkpoints this one was made from. session, run: where it was trained, else empty.
    recipe, metrics: JSON objects. writer: names the folder of the files inside the checkpoint; see `checkpoints`.
    """

    id: str
    format: str
    architecture: str
    kind: str
    precision: str
    prediction_type: str
    resolution: int
    base_model: str
    files: tuple[FileEntry, ...]
    parents: tuple[str, ...] = ()
    session: str = ""
    run: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    create_time: datetime = field(default_factory=lambda: datetime.now(UTC))
    title: str = ""
    writer: str = ""

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(entry.size_bytes for entry in self.files)

    def file(self, path: str) -> FileEntry | None:
        """The entry of one path, or None."""
        return next((entry for entry in self.files if entry.path == path), None)

    def encode(self) -> bytes:
        """The bytes of manifest.json, the same for equal manifests."""
        record = {"schema": records.SCHEMA} | {each.name: getattr(self, each.name) for each in fields(self)}
        record["files"] = [{"path": e.path, "size_bytes": e.size_bytes, "sha256": e.sha256} for e in self.files]
        record["create_time"] = records.rfc3339(self.create_time)
        return records.encode(record)


def decode(key: str, checkpoint_id: str, data: bytes) -> Manifest:
    """Read manifest.json of the checkpoint named `checkpoint_id`. Raises ManifestInvalid with every problem."""
    reader = records.RecordReader(key, data)
    manifest = Manifest(
        id=reader.text("id"),
        format=reader.text("format"),
        architecture=reader.text("architecture"),
        kind=reader.text("kind"),
        precision=reader.text("precision"),
        prediction_type=reader.text("prediction_type"),
        resolution=reader.integer("resolution"),
        base_model=reader.text("base_model"),
        files=tuple(_files(reader)),
        parents=reader.texts("parents"),
        session=reader.text("session", ""),
        run=reader.text("run", ""),
        recipe=reader.mapping("recipe"),
        metrics=reader.mapping("metrics"),
        create_time=reader.time("create_time"),
        title=reader.text("title", ""),
        writer=reader.text("writer", ""),
    )
    if manifest.id and manifest.id != checkpoint_id:
        reader.problem(f"id: {manifest.id!r}, but the folder is {checkpoint_id!r}")
    if not _WRITER.fullmatch(manifest.writer):
        reader.problem(f"writer: {manifest.writer!r} is not a folder name")
    reader.finish()
    return manifest


def _files(reader: records.RecordReader) -> list[FileEntry]:
    entries: list[FileEntry] = []
    for index, item in enumerate(reader.items("files", required=True)):
        problem = _entry_problem(item)
        if problem:
            reader.problem(f"files[{index}]: {problem}")
        else:
            entries.append(FileEntry(item["path"], item["size_bytes"], item["sha256"]))
    if len({entry.path for entry in entries}) != len(entries):
        reader.problem("files: a path appears twice")
    return entries


def _entry_problem(item: Any) -> str:
    if not isinstance(item, dict):
        return f"object expected, found {type(item).__name__}"
    path, size_bytes, sha256 = item.get("path"), item.get("size_bytes"), item.get("sha256")
    if not isinstance(path, str):
        return "path: missing or not a string"
    try:
        names.file_path(path)  # a download joins it to a local folder
    except InvalidName as error:
        return str(error)
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or size_bytes < 0:
        return f"size_bytes: {size_bytes!r} is not a size"
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        return f"sha256: {sha256!r} is not 64 hex digits"
    return ""
