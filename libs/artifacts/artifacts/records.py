"""JSON records of the bucket (session.json, manifest.json): reading with all mistakes reported, stable writing.

`sessions` and `manifest` call this. Records are for people too: indented, keys in the order of the dataclass.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from artifacts.errors import ManifestInvalid

SCHEMA = 1


def encode(record: Mapping[str, Any]) -> bytes:
    """UTF-8 JSON, two spaces of indent, newline at the end; fields in the order given, keys inside them sorted.

    Raises ValueError for NaN and infinity, which JSON does not have, and TypeError for other values it cannot hold.
    """
    ordered = {name: _sorted(value) for name, value in record.items()}
    return (json.dumps(ordered, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value


def rfc3339(time: datetime) -> str:
    """A moment as RFC 3339 in UTC with microseconds."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class RecordReader:
    """Takes typed fields out of one JSON object and collects what is wrong; `finish` raises it all at once.

    Fields that nobody asks for are ignored: a newer version may write more.
    """

    def __init__(self, key: str, data: bytes) -> None:
        self._key = key
        self._problems: list[str] = []
        try:
            record = json.loads(data)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ManifestInvalid(key, (f"not JSON: {error}",)) from error
        if not isinstance(record, dict):
            raise ManifestInvalid(key, (f"a JSON object was expected, found {type(record).__name__}",))
        self._record: dict[str, Any] = record
        schema = self.integer("schema")
        if schema > SCHEMA:
            raise ManifestInvalid(key, (f"schema {schema} is newer than {SCHEMA}, the newest known here; upgrade",))

    def problem(self, text: str) -> None:
        """Add a mistake found by the caller."""
        self._problems.append(text)

    def text(self, name: str, default: str | None = None) -> str:
        """A string field; without default it is required."""
        value: str = self._take(name, str, "" if default is None else default, default is None)
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole-number field; without default it is required."""
        value: int = self._take(name, int, 0 if default is None else default, default is None)
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """An object field, empty if absent."""
        value: dict[str, Any] = self._take(name, dict, {}, False)
        return value

    def pairs(self, name: str) -> dict[str, str]:
        """An object field whose values are strings, empty if absent."""
        value = self.mapping(name)
        if not all(isinstance(text, str) for text in value.values()):
            self.problem(f"{name}: all values must be strings")
            return {}
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """An array field of strings, empty if absent."""
        value = self.items(name)
        if not all(isinstance(text, str) for text in value):
            self.problem(f"{name}: all items must be strings")
            return ()
        return tuple(value)

    def items(self, name: str, required: bool = False) -> list[Any]:
        """An array field, empty if absent."""
        value: list[Any] = self._take(name, list, [], required)
        return value

    def time(self, name: str) -> datetime:
        """A required RFC 3339 moment."""
        text = self.text(name)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            if text:
                self.problem(f"{name}: {text!r} is not an RFC 3339 time")
            return datetime.fromtimestamp(0, UTC)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def finish(self) -> None:
        """Raise ManifestInvalid with every problem found so far, if any."""
        if self._problems:
            raise ManifestInvalid(self._key, tuple(self._problems))

    def _take(self, name: str, kind: type, default: Any, required: bool) -> Any:
        if name not in self._record:
            if required:
                self.problem(f"{name}: missing")
            return default
        value = self._record[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            self.problem(f"{name}: {kind.__name__} expected, found {type(value).__name__}")
            return default
        return value
