"""JSON records: stable bytes, all mistakes at once, room for newer fields."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from artifacts import records
from artifacts.errors import ManifestInvalid


def _read(text: str) -> None:
    reader = records.RecordReader("k", text.encode())
    reader.text("name")
    reader.integer("size")
    reader.time("time")
    reader.mapping("labels")
    reader.items("files", required=True)
    reader.finish()


def _problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ManifestInvalid) as caught:
        _read(text)
    assert caught.value.key == "k"
    return caught.value.problems


def test_all_mistakes_at_once() -> None:
    text = '{"schema": 1, "name": 5, "size": true, "time": "yesterday", "labels": [], "files": {}}'
    assert _problems(text) == (
        "name: str expected, found int",
        "size: int expected, found bool",
        "time: 'yesterday' is not an RFC 3339 time",
        "labels: dict expected, found list",
        "files: list expected, found dict",
    )


def test_missing_fields_are_listed() -> None:
    assert _problems('{"schema": 1}') == ("name: missing", "size: missing", "time: missing", "files: missing")


@pytest.mark.parametrize("text", ["", "{", "\xff", "NaN but not JSON"])
def test_not_json(text: str) -> None:
    (problem,) = _problems(text)
    assert problem.startswith("not JSON")


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ManifestInvalid, match="not JSON"):
        records.RecordReader("k", b"\xff\xfe\xff")


def test_not_an_object() -> None:
    assert _problems("[1]") == ("a JSON object was expected, found list",)


def test_newer_schema_asks_for_an_upgrade() -> None:
    (problem,) = _problems('{"schema": 2}')
    assert "upgrade" in problem


def test_times_are_utc_with_microseconds() -> None:
    moment = datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    assert records.rfc3339(moment) == "2026-11-23T10:00:00.000005Z"
    reader = records.RecordReader("k", b'{"schema": 1, "t": "2026-11-23T10:00:00.000005Z"}')
    assert reader.time("t") == moment
    assert records.RecordReader("k", b'{"schema": 1, "t": "2026-11-23"}').time("t").tzinfo == UTC


def test_nan_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        records.encode({"loss": float("nan")})
