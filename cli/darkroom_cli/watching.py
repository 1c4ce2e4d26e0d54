"""Following work that goes on without its watchers: a stream that breaks is opened again."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import grpc

from darkroom_cli.output import console

E = TypeVar("E")
PATIENCE_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 1.0


def follow(watch: Callable[[], Iterable[E]], pause_seconds: float = _PAUSE_SECONDS) -> Iterator[E]:
    """The events of the stream that `watch` opens, opened again whenever its service goes away.

    A stream tells what happened from its beginning or where things stand, so events may come twice. Raises
    grpc.RpcError once the service has been away for PATIENCE_SECONDS, and at once for any other status.
    """
    heard = time.monotonic()
    is_away = False
    while True:
        try:
            for event in watch():
                heard, is_away = time.monotonic(), False
                yield event
            return
        except grpc.RpcError as error:
            call: Any = error
            if call.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() - heard > PATIENCE_SECONDS:
                raise
        if not is_away:
            console.print("the service went away; the work is kept, watching again as soon as it answers")
            is_away = True
        time.sleep(pause_seconds)
