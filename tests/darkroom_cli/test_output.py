"""Errors of calls become words and exit codes."""

import json

import grpc
import pytest
from darkroom_cli.output import UsageProblem, describe_call_error, print_table, readable_errors


class Refused(grpc.RpcError):
    """A failed call without details, as grpc gives one when nobody listens."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "connection refused"

    def trailing_metadata(self) -> tuple[()]:
        return ()


def test_an_unreachable_service_asks_for_darkroom_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe_call_error(Refused()) == 3
    assert "darkroom up" in capsys.readouterr().err


def test_a_usage_problem_ends_with_one_line_and_code_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, readable_errors():
        raise UsageProblem("say [what] to do")
    assert caught.value.code == 1
    assert "say [what] to do" in capsys.readouterr().err


def test_a_table_as_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("Base model", "Size"), [("sd15-tiny", 64)], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"base_model": "sd15-tiny", "size": 64}]
