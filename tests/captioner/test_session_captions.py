"""Captions of a session, below the wire."""

import asyncio
from collections.abc import Callable

import pytest
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore
from captioner.errors import QueueFull
from captioner.generation import Text
from captioner.session_captions import Wording, caption_session


async def test_waiting_for_a_full_queue_ends_with_the_call(store: ObjectStore) -> None:
    sessions = Sessions(store)
    sessions.create("discs")
    sessions.put_image("discs", "a.png", b"x")
    num_tries = 0

    async def full(read: Callable[[], bytes]) -> Text:
        nonlocal num_tries
        num_tries += 1
        raise QueueFull(1, 1)

    async def call() -> None:
        async for _ in caption_session(sessions, "discs", Wording(), full):
            raise AssertionError("no image can be done")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(), 1)
    assert 2 <= num_tries <= 5
    assert asyncio.all_tasks() == {asyncio.current_task()}
