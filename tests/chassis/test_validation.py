from types import ModuleType

import pytest
from chassis import validation
from chassis.errors import InvalidFields


def test_every_violation_is_reported_with_its_path(echo: ModuleType) -> None:
    request = echo.echo_pb2.EchoRequest(
        text="x" * 21,
        times=-1,
        items=[{"name": "fine"}, {"name": ""}],
        labels={"colour": "", "size": "small"},
    )
    with pytest.raises(InvalidFields) as caught:
        validation.check(request)
    violations = {violation.field: violation.description for violation in caught.value.violations}
    assert set(violations) == {"text", "times", "items[1].name", 'labels["colour"]'}
    assert "20" in violations["text"]


def test_a_valid_message_passes(echo: ModuleType) -> None:
    validation.check(echo.echo_pb2.EchoRequest(text="x"))
