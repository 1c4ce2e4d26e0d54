"""The rules that the protos state (protovalidate), applied to request messages.

Called by `handlers.py` for every request message; which status a violation becomes is left to `errors.py`.
"""

from typing import Any

import protovalidate
from google.protobuf.message import Message

from chassis.errors import FieldViolation, InvalidFields


def check(message: Message) -> None:
    """Raise InvalidFields with every violation of the message's rules."""
    violations = protovalidate.collect_violations(message)
    if violations:
        raise InvalidFields(*(_as_field_violation(violation) for violation in violations))


def _as_field_violation(violation: protovalidate.Violation) -> FieldViolation:
    proto = violation.proto
    path = ".".join(_element(element) for element in proto.field.elements) if proto.field else ""
    return FieldViolation(path, proto.message or proto.rule_id)


def _element(element: Any) -> str:
    """One step of a field path: "images", "images[2]" or 'labels["colour"]'."""
    if element.subscript is None:
        return str(element.field_name)
    key = element.subscript.value
    return f'{element.field_name}["{key}"]' if isinstance(key, str) else f"{element.field_name}[{key}]"
