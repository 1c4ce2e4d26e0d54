from typing import Any

import grpc
import pytest
from chassis.errors import (
    MAX_DETAILS_BYTES,
    MAX_MESSAGE_CHARACTERS,
    ErrorRule,
    FieldViolation,
    InvalidFields,
    describe,
)
from google.rpc import error_details_pb2


class StoreFailed(Exception):
    """A domain error with fields of several types."""

    def __init__(self, key: str, size_bytes: int, data: bytes) -> None:
        self.key = key
        self.size_bytes = size_bytes
        self.data = data
        self._client = "internal"
        super().__init__(f"cannot store {key}: {size_bytes} bytes are too many")


class QuotaExceeded(StoreFailed):
    """Without an entry of its own."""


TABLE = {StoreFailed: ErrorRule(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL", retry_seconds=2.5)}


def detail(failure: Any, kind: type[Any]) -> Any:
    return next((message for message in failure.details if isinstance(message, kind)), None)


def test_a_rule_gives_status_reason_fields_and_delay() -> None:
    failure = describe(StoreFailed("a/b", 7, b"raw"), TABLE, "r1")
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.message == "cannot store a/b: 7 bytes are too many"
    assert failure.known
    info = detail(failure, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("STORE_FULL", "darkroom")
    assert dict(info.metadata) == {"key": "a/b", "size_bytes": "7"}
    delay = detail(failure, error_details_pb2.RetryInfo).retry_delay
    assert (delay.seconds, delay.nanos) == (2, 500_000_000)


def test_a_subclass_is_served_by_the_rule_of_its_base() -> None:
    assert describe(QuotaExceeded("a", 1, b""), TABLE, "r1").reason == "STORE_FULL"


def test_the_delay_of_the_exception_wins_over_the_rules() -> None:
    error = StoreFailed("a", 1, b"")
    error.retry_seconds = 30.0  # type: ignore[attr-defined]
    failure = describe(error, TABLE, "r1")
    assert failure.retry_seconds == 30.0
    assert detail(failure, error_details_pb2.RetryInfo).retry_delay.seconds == 30


def test_an_error_that_never_works_has_no_retry_info() -> None:
    failure = describe(KeyError("x"), {KeyError: ErrorRule(grpc.StatusCode.NOT_FOUND, "NO_SUCH_KEY")}, "r1")
    assert detail(failure, error_details_pb2.RetryInfo) is None


def test_an_unknown_exception_says_nothing_but_the_request_id() -> None:
    failure = describe(RuntimeError("password=hunter2"), TABLE, "r1")
    assert failure.code is grpc.StatusCode.INTERNAL
    assert not failure.known
    assert "hunter2" not in str(failure.status())
    assert "r1" in failure.message
    assert detail(failure, error_details_pb2.ErrorInfo).reason == "INTERNAL"


def test_invalid_fields_list_every_violation() -> None:
    error = InvalidFields(FieldViolation("a", "must be even"), FieldViolation("b[2].c", "must be shorter"))
    failure = describe(error, {}, "r1")
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.message == "a: must be even; b[2].c: must be shorter"
    bad_request = detail(failure, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad_request.field_violations] == [
        ("a", "must be even"),
        ("b[2].c", "must be shorter"),
    ]
    assert detail(failure, error_details_pb2.ErrorInfo).metadata["violations"] == "2"


def test_invalid_fields_need_a_violation() -> None:
    with pytest.raises(ValueError, match="at least one"):
        InvalidFields()


def test_more_violations_than_a_header_holds_are_counted() -> None:
    error = InvalidFields(*(FieldViolation(f"items[{index}].name", "must not be empty") for index in range(1000)))
    failure = describe(error, {}, "r1")
    listed = detail(failure, error_details_pb2.BadRequest).field_violations
    assert 50 < len(listed) < 1000
    assert listed[-1].description == f"and {1000 - len(listed) + 1} more violations"
    assert detail(failure, error_details_pb2.ErrorInfo).metadata["violations"] == "1000"
    assert sum(message.ByteSize() for message in failure.details) < MAX_DETAILS_BYTES + 200
    assert len(failure.message) == MAX_MESSAGE_CHARACTERS


def test_an_exception_without_text_is_named() -> None:
    assert describe(QuotaEmpty(), {QuotaEmpty: ErrorRule(grpc.StatusCode.ABORTED, "X")}, "").message == "QuotaEmpty"


class QuotaEmpty(Exception):
    """Has no message."""
