"""Trainers of a cluster in tests: in this process, or as processes of their own that are killed at a chosen point."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from chassis.client import channel
from darkroom.trainer.v1 import training_pb2 as pb
from darkroom.trainer.v1.session_pb2_grpc import SessionServiceStub
from darkroom.trainer.v1.training_pb2_grpc import TrainingServiceStub
from jobs.names import job_name
from trainer.config import TrainerConfig

from tests.cluster.control_plane.plane import Plane
from tests.trainer.conftest import TOKEN, Client

_CRASHING = Path(__file__).with_name("crashing_trainer.py")


@asynccontextmanager
async def process(
    config: TrainerConfig, folder: Path, crash_at: str = ""
) -> AsyncIterator[tuple[Client, "subprocess.Popen[bytes]"]]:
    """`python -m trainer`, ready; killed at the end if it still runs. crash_at: where it kills itself before."""
    folder.mkdir(parents=True, exist_ok=True)
    endpoint = folder / "endpoint.json"
    endpoint.unlink(missing_ok=True)
    settings = {
        each.metadata["env"]: str(getattr(part, each.name))
        for part in (config.store, config.local, config)
        for each in fields(part)
        if "env" in each.metadata
    }
    environment = {**os.environ, **settings, "DARKROOM_TOKEN": TOKEN, "DARKROOM_ENDPOINT_FILE": str(endpoint)}
    command = [sys.executable, str(_CRASHING), crash_at] if crash_at else [sys.executable, "-m", "trainer"]
    service = subprocess.Popen(command, env=environment)
    try:
        while not endpoint.exists():
            assert service.poll() is None
            await asyncio.sleep(0.02)
        async with channel(json.loads(endpoint.read_text())["grpc"], TOKEN) as opened:
            sessions, training = SessionServiceStub(opened), TrainingServiceStub(opened)
            yield Client(sessions, training, None, 0, config), service
    finally:
        service.kill()
        service.wait()


def jobs(plane: Plane, namespace: str) -> list[dict[str, Any]]:
    """All Jobs of a namespace."""
    found: list[dict[str, Any]] = plane.ask("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs")["items"]
    return found


def job(plane: Plane, namespace: str, run: str) -> dict[str, Any]:
    """The Job of a run."""
    found: dict[str, Any] = plane.ask("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{job_name(run)}")
    return found


class Counted:
    """Every Job that was ever there; used in a `with` block around everything that could make one."""

    def __init__(self, plane: Plane, namespace: str) -> None:
        self.uids: set[str] = set()
        self._plane = plane
        self._namespace = namespace
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Counted":
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopping.wait(0.05):
            self.uids |= {each["metadata"]["uid"] for each in jobs(self._plane, self._namespace)}


async def run_until(client: Client, name: str, *states: str) -> pb.Run:
    """The run as soon as it is in one of these states."""
    while True:
        run = await client.training.GetRun(pb.GetRunRequest(name=name))
        if pb.RunState.Name(run.state).removeprefix("RUN_STATE_") in states:
            return run
        await asyncio.sleep(0.1)
