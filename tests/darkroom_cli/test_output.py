"""Errors of calls become words and exit codes."""

import json
from pathlib import Path

import grpc
import pytest
from darkroom_cli.output import UsageProblem, describe_call_error, print_table, readable_errors
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2


class Failed(grpc.RpcError):
    """A failed call, as grpc gives it to the caller; without details if no service sent them."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        self._code, self._message = code, message
        status = status_pb2.Status(code=code.value[0], message=message)
        for detail in details:
            status.details.add().Pack(detail)
        self._metadata = (("grpc-status-details-bin", status.SerializeToString()),) if details else ()

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._message

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return self._metadata


def test_an_unreachable_service_asks_for_darkroom_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe_call_error(Failed(grpc.StatusCode.UNAVAILABLE, "connection refused")) == 3
    assert "darkroom up" in capsys.readouterr().err


def test_a_usage_problem_ends_with_one_line_and_code_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, readable_errors():
        raise UsageProblem("say [what] to do")
    assert caught.value.code == 1
    assert "say [what] to do" in capsys.readouterr().err


def test_a_table_as_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("Base model", "Size"), [("sd15-tiny", 64)], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"base_model": "sd15-tiny", "size": 64}]


def test_a_table_in_a_pipe_is_not_folded_and_its_texts_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    caption = "a [bold]toy[/] " * 40
    print_table(("Image", "Caption"), [("a[1].png", caption)], as_json=False)
    assert capsys.readouterr().out.splitlines()[1].split("  ", 1) == ["a[1].png", caption]


def test_the_messages_behind_a_table_are_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("Image",), [("a.png",)], True, [error_details_pb2.ErrorInfo(reason="R")])
    assert json.loads(capsys.readouterr().out) == [{"reason": "R", "domain": "", "metadata": {}}]


def test_every_violation_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=name, description=f"{name} is wrong") for name in ("a", "b")
    ]
    details = (
        error_details_pb2.ErrorInfo(reason="INVALID_REQUEST"),
        error_details_pb2.BadRequest(field_violations=violations),
    )
    text = "a: a is wrong; b: b is wrong"
    assert describe_call_error(Failed(grpc.StatusCode.INVALID_ARGUMENT, text, *details)) == 1
    printed = capsys.readouterr().err
    assert [printed.count(said) for said in ("a is wrong", "b is wrong", "INVALID_REQUEST")] == [1, 1, 1]


def test_a_service_that_cannot_now_is_not_called_unreachable(capsys: pytest.CaptureFixture[str]) -> None:
    busy = Failed(grpc.StatusCode.UNAVAILABLE, "the store is down", error_details_pb2.ErrorInfo(reason="STORE_DOWN"))
    assert describe_call_error(busy) == 1
    assert "the store is down (STORE_DOWN)" in capsys.readouterr().err


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), readable_errors():
        (tmp_path / "none" / "file").write_text("")
    assert f"{tmp_path}/none/file: No such file or directory" in capsys.readouterr().err
