"""One generation of the queue, and what the queue needs of a back end. `jobs` moves jobs from state to state.

Domain: imports nothing of the gateway.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias


class State(StrEnum):
    """Where a job stands; the last three are final."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class Progress:
    """How far a running job is. fraction: 0 to 1. preview: base64 PNG or empty. raw: the back end's own answer.

    task: id of what the back end draws now, "" if it does not say. It may be another's who shares that back end.
    """

    fraction: float = 0.0
    step: int = 0
    num_steps: int = 0
    eta_seconds: float = 0.0
    preview: str = ""
    task: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)


Outcome: TypeAlias = "asyncio.Future[dict[str, Any]]"


@dataclass(eq=False)
class Job:
    """One generation. bodies: for each back end that can draw it, its request, by URL; empty once it ended.

    started: on the monotonic clock, when it began to wait or, while it runs, to be drawn. seconds: how long it was drawn.
    """

    id: str
    path: str
    bodies: Mapping[str, dict[str, Any]]
    model: str
    state: State = State.PENDING
    progress: Progress = field(default_factory=Progress)
    num_attempts: int = 0
    backend: str = ""
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def final(self) -> bool:
        """Whether it ended."""
        return self.state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    def notify(self) -> None:
        """Wake whoever waits for news of it."""
        self.changed.set()
        self.changed = asyncio.Event()


class Draws(Protocol):
    """What the queue needs of a back end. Methods raise BackendAway, or another GatewayError for its answer."""

    @property
    def url(self) -> str:
        """Its address, the key of Job.bodies."""
        ...

    async def generate(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Draw; returns the reply. Ends early when it is cancelled, and tells the back end by closing the connection."""
        ...

    async def progress(self) -> Progress:
        """How far it is."""
        ...

    async def interrupt(self) -> None:
        """Stop early."""
        ...
