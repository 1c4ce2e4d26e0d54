"""A watch outlives its service; what is no outage ends it."""

from collections.abc import Iterator

import grpc
import pytest
from darkroom_cli import watching


class Ended(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


def streams(*parts: list[int | grpc.StatusCode]) -> Iterator[Iterator[int]]:
    def one(part: list[int | grpc.StatusCode]) -> Iterator[int]:
        for event in part:
            if isinstance(event, grpc.StatusCode):
                raise Ended(event)
            yield event

    return map(one, parts)


def test_a_stream_is_opened_again_after_outages() -> None:
    away = grpc.StatusCode.UNAVAILABLE
    opened = streams([1, 2, away], [away], [1, 2, 3])
    assert list(watching.follow(lambda: next(opened), pause_seconds=0)) == [1, 2, 1, 2, 3]


def test_another_status_ends_it() -> None:
    opened = streams([1, grpc.StatusCode.NOT_FOUND], [2])
    with pytest.raises(Ended):
        list(watching.follow(lambda: next(opened), pause_seconds=0))
    assert list(next(opened)) == [2]


def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PATIENCE_SECONDS", -1.0)
    opened = streams([1, grpc.StatusCode.UNAVAILABLE], [2])
    with pytest.raises(Ended):
        list(watching.follow(lambda: next(opened), pause_seconds=0))


def test_a_service_that_has_not_been_heard_is_not_waited_for_if_it_must_answer() -> None:
    away = grpc.StatusCode.UNAVAILABLE
    opened = streams([away], [1, away], [away], [1, 2])
    with pytest.raises(Ended):
        list(watching.follow(lambda: next(opened), pause_seconds=0, must_answer=True))
    assert list(watching.follow(lambda: next(opened), pause_seconds=0, must_answer=True)) == [1, 1, 2]
