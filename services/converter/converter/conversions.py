"""Conversions as records in the bucket, conversions/<id>.json, changed by compare-and-swap only.

`jobs` keeps them. The id of a conversion is the id of the checkpoint it makes, so asking twice finds the first.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Final

from artifacts import names, records
from artifacts.errors import ManifestInvalid, NotFound
from artifacts.store import ObjectStore

ROOT: Final = "conversions/"

PENDING: Final = "PENDING"
RUNNING: Final = "RUNNING"
SUCCEEDED: Final = "SUCCEEDED"
FAILED: Final = "FAILED"
CANCELLING: Final = "CANCELLING"
CANCELLED: Final = "CANCELLED"
FINAL: Final = frozenset({SUCCEEDED, FAILED, CANCELLED})

logger = logging.getLogger("converter.conversions")


@dataclass(frozen=True)
class Conversion:
    """One conversion; see the proto's message of this name. precision "" keeps the source's. end_time: None before."""

    id: str
    state: str
    source: str
    format: str
    precision: str
    request_id: str
    create_time: datetime
    end_time: datetime | None = None
    num_tensors_done: int = 0
    num_tensors: int = 0
    num_bytes_done: int = 0
    num_bytes: int = 0
    num_tensors_proved: int = 0
    tensors_sha256: str = ""
    error: str = ""

    @property
    def is_final(self) -> bool:
        """Whether it will not change any more."""
        return self.state in FINAL

    @property
    def request(self) -> tuple[str, str, str]:
        """What was asked for: equal requests mean the same conversion."""
        return self.source, self.format, self.precision

    @property
    def recipe(self) -> dict[str, str]:
        """How the checkpoint came about, for its manifest."""
        return {"source": self.source, "format": self.format, "precision": self.precision}

    def ended(self, state: str, error: str = "") -> "Conversion":
        """The same, finished now."""
        return replace(self, state=state, error=error, end_time=datetime.now(UTC))

    def encode(self) -> bytes:
        """The bytes of its record."""
        record = {"schema": records.SCHEMA} | {each.name: getattr(self, each.name) for each in fields(self)}
        record["create_time"] = records.rfc3339(self.create_time)
        record["end_time"] = records.rfc3339(self.end_time) if self.end_time else ""
        return records.encode(record)


@dataclass(frozen=True)
class Version:
    """A conversion as the store has it, with the ETag that a change must name."""

    conversion: Conversion
    etag: str


class ConversionRecords:
    """The conversions of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        # Finished records never change; their list would otherwise be read anew for every page.
        self._finished: dict[str, Version] = {}

    def create(self, conversion: Conversion) -> Version:
        """Raises AlreadyExists if the id is taken."""
        written = self._store.put_if_absent(_key(conversion.id), conversion.encode(), "application/json")
        return Version(conversion, written.etag)

    def get(self, conversion_id: str) -> Version:
        """Raises NotFound, ManifestInvalid."""
        key = _key(conversion_id)
        try:
            etag = self._store.stat(key).etag
            # Should it change in between, the ETag is the older one, and a change based on it is refused.
            return Version(_decode(key, conversion_id, self._store.get(key)), etag)
        except NotFound:
            raise NotFound("conversion", conversion_id, self._store.config.place) from None

    def replace(self, version: Version, conversion: Conversion) -> Version:
        """Change a conversion if it still is `version`. Raises Conflict."""
        written = self._store.replace(_key(conversion.id), conversion.encode(), version.etag, "application/json")
        return Version(conversion, written.etag)

    def list(self) -> Iterator[Version]:
        """All of them that can be read, in no order."""
        for stat in self._store.list(ROOT):
            conversion_id = stat.key.removeprefix(ROOT).removesuffix(".json")
            known = self._finished.get(conversion_id)
            if known is None or known.etag != stat.etag:
                try:
                    known = self.get(conversion_id)
                except NotFound:
                    continue
                except ManifestInvalid as error:
                    # One bad record must not hide the others; `get` names what is wrong with it.
                    logger.warning("left out of the list of conversions: %s", error)
                    continue
                if known.conversion.is_final:
                    self._finished[conversion_id] = known
            yield known


def _key(conversion_id: str) -> str:
    return f"{ROOT}{names.checkpoint_id(conversion_id)}.json"


def _decode(key: str, conversion_id: str, data: bytes) -> Conversion:
    reader = records.RecordReader(key, data)
    end_time = reader.time("end_time") if reader.text("end_time", "") else None
    conversion = Conversion(
        id=conversion_id,
        state=reader.text("state"),
        source=reader.text("source"),
        format=reader.text("format"),
        precision=reader.text("precision", ""),
        request_id=reader.text("request_id", ""),
        create_time=reader.time("create_time"),
        end_time=end_time,
        num_tensors_done=reader.integer("num_tensors_done", 0),
        num_tensors=reader.integer("num_tensors", 0),
        num_bytes_done=reader.integer("num_bytes_done", 0),
        num_bytes=reader.integer("num_bytes", 0),
        num_tensors_proved=reader.integer("num_tensors_proved", 0),
        tensors_sha256=reader.text("tensors_sha256", ""),
        error=reader.text("error", ""),
    )
    if conversion.state not in FINAL | {PENDING, RUNNING, CANCELLING}:
        reader.problem(f"state: {conversion.state!r} is not a state")
    reader.finish()
    return conversion
