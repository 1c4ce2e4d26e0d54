"""What a failed call tells its caller: domain exceptions to gRPC statuses with google.rpc details.

A service states one `ErrorTable`; `calls.py` asks `describe` for every exception that leaves a handler and sends the
answer. Two families: *try again* (with RetryInfo) and *will never work* (with field violations where a field is wrong).
Logging and counting are left to `calls.py`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from chassis.auth import TokenMissing, TokenWrong

DOMAIN: Final = "darkroom"
"""ErrorInfo.domain of every error."""

# Details travel as one HTTP/2 header, in base64 (a third more), and gRPC clients refuse more than 8 KiB of headers.
MAX_DETAILS_BYTES: Final = 4096
MAX_MESSAGE_CHARACTERS: Final = 500
MAX_METADATA_CHARACTERS: Final = 200


@dataclass(frozen=True)
class ErrorRule:
    """How an exception appears on the wire.

    reason: constant in UPPER_SNAKE_CASE that programs match on (ErrorInfo.reason).
    retry_seconds: when to try again (RetryInfo); None: trying again will not help. An exception's own attribute
    `retry_seconds` wins over it.
    """

    status: grpc.StatusCode
    reason: str
    retry_seconds: float | None = None


ErrorTable = Mapping[type[Exception], ErrorRule]
"""Looked up along the exception's MRO: an entry for a base class serves its subclasses."""


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field: its path in the request ("settings.num_beams", "images[2].data") and what is wrong with it."""

    field: str
    description: str


class InvalidFields(Exception):
    """Fields of the request are wrong in a way that the rules in the proto cannot say. Becomes INVALID_ARGUMENT.

    Attributes: violations, at least one; all of them, not only the first.
    """

    def __init__(self, *violations: FieldViolation) -> None:
        if not violations:
            raise ValueError("InvalidFields needs at least one violation")
        self.violations = violations
        super().__init__("; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations))


class RequestMalformed(Exception):
    """The bytes of the request are not a message of the method's type."""


class ResponseTooLarge(Exception):
    """The server's answer is over the limit of a message.

    Attributes: num_bytes, max_bytes.
    """

    def __init__(self, num_bytes: int, max_bytes: int) -> None:
        self.num_bytes = num_bytes
        self.max_bytes = max_bytes
        super().__init__(
            f"the response has {num_bytes} bytes, at most {max_bytes} may be sent; ask for less, "
            "or raise DARKROOM_MAX_MESSAGE_BYTES on the server"
        )


class MethodUnknown(Exception):
    """The server has no such method."""


class ShuttingDown(Exception):
    """The server finishes its calls, takes no new ones, and ends those that only watch or last longer than its drain."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; try again, another one may answer")


_BUILT_IN: Final[ErrorTable] = {
    InvalidFields: ErrorRule(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    RequestMalformed: ErrorRule(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED"),
    ResponseTooLarge: ErrorRule(grpc.StatusCode.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE"),
    MethodUnknown: ErrorRule(grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN"),
    TokenMissing: ErrorRule(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING"),
    TokenWrong: ErrorRule(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_WRONG"),
    ShuttingDown: ErrorRule(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_seconds=1.0),
}
_INTERNAL: Final = ErrorRule(grpc.StatusCode.INTERNAL, "INTERNAL")


@dataclass(frozen=True)
class Failure:
    """A failed call, ready to be sent. known: the exception was in the table; if not, it needs a log line."""

    code: grpc.StatusCode
    reason: str
    message: str
    details: tuple[Message, ...]
    retry_seconds: float | None
    known: bool

    def status(self) -> status_pb2.Status:
        """The failure as google.rpc.Status, as it travels in `grpc-status-details-bin`."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            status.details.add().Pack(detail)
        return status


def describe(error: Exception, table: ErrorTable, request_id: str) -> Failure:
    """Say what the caller learns of this exception.

    The message is str(error); the exception's attributes that are text or numbers become ErrorInfo.metadata. Of an
    exception that no rule covers the caller learns nothing but the request id, under which the log has the rest.
    """
    rule = _find_rule(error, table)
    if rule is None:
        message = f"internal error; the server's log has the cause under request id {request_id}"
        info = error_details_pb2.ErrorInfo(reason=_INTERNAL.reason, domain=DOMAIN, metadata={"request_id": request_id})
        return Failure(_INTERNAL.status, _INTERNAL.reason, message, (info,), None, known=False)
    info = error_details_pb2.ErrorInfo(reason=rule.reason, domain=DOMAIN, metadata=_fields_of(error))
    details: list[Message] = [info]
    if isinstance(error, InvalidFields):
        info.metadata["violations"] = str(len(error.violations))
        details.append(_bad_request(error.violations, MAX_DETAILS_BYTES - info.ByteSize()))
    retry_seconds = getattr(error, "retry_seconds", rule.retry_seconds)
    if retry_seconds is not None:
        details.append(_retry_info(retry_seconds))
    return Failure(rule.status, rule.reason, _message_of(error), tuple(details), retry_seconds, known=True)


def _find_rule(error: Exception, table: ErrorTable) -> ErrorRule | None:
    for cls in type(error).__mro__:
        rule = table.get(cls) or _BUILT_IN.get(cls)
        if rule is not None:
            return rule
    return None


def _message_of(error: Exception) -> str:
    message = str(error) or type(error).__name__
    return message if len(message) <= MAX_MESSAGE_CHARACTERS else message[: MAX_MESSAGE_CHARACTERS - 1] + "…"


def _fields_of(error: Exception) -> dict[str, str]:
    public = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    plain = {name: str(value) for name, value in public.items() if isinstance(value, str | int | float)}
    return {name: value[:MAX_METADATA_CHARACTERS] for name, value in plain.items()}


def _bad_request(violations: Sequence[FieldViolation], max_bytes: int) -> error_details_pb2.BadRequest:
    """Every violation, or as many as fit into the header with a last entry that counts the rest."""
    bad_request = error_details_pb2.BadRequest()
    for index, violation in enumerate(violations):
        entry = bad_request.field_violations.add(field=violation.field, description=violation.description)
        if bad_request.ByteSize() > max_bytes:
            entry.field = ""
            entry.description = f"and {len(violations) - index} more violations"
            break
    return bad_request


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    fraction, whole = math.modf(seconds)
    info.retry_delay.seconds = int(whole)
    info.retry_delay.nanos = round(fraction * 1e9)
    return info
