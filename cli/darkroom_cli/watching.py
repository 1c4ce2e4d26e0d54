"""Following a stream that may be opened again: one that tells of work elsewhere, or that goes on where it broke."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import grpc

from darkroom_cli.output import console

E = TypeVar("E")
PATIENCE_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 1.0


def follow(
    watch: Callable[[], Iterable[E]], pause_seconds: float = _PAUSE_SECONDS, *, must_answer: bool = False
) -> Iterator[E]:
    """The events of the stream that `watch` opens, opened again whenever its service goes away.

    A stream tells what happened from its beginning or where things stand, so events may come twice. Raises
    grpc.RpcError once the service has been away for PATIENCE_SECONDS, and at once for any other status.
    must_answer: raise at once, too, while nothing has been heard at all: the service may not run.
    """
    heard = time.monotonic()
    is_away, is_patient = False, not must_answer
    while True:
        try:
            for event in watch():
                heard, is_away, is_patient = time.monotonic(), False, True
                yield event
            return
        except grpc.RpcError as error:
            call: Any = error
            is_over = call.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() - heard > PATIENCE_SECONDS
            if is_over or not is_patient:
                raise
        if not is_away:
            console.print("the service went away; the work is kept and goes on as soon as it answers")
            is_away = True
        time.sleep(pause_seconds)
