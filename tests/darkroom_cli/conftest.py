"""A trainer for the commands: a real one in a thread of its own, with real runs of a stand-in program."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from artifacts.store import ObjectStore
from chassis.client import blocking_channel
from chassis.config import ServerConfig
from chassis.testing import running
from darkroom.trainer.v1 import session_pb2, training_pb2
from darkroom.trainer.v1.session_pb2_grpc import SessionServiceStub
from darkroom.trainer.v1.training_pb2_grpc import TrainingServiceStub
from darkroom_cli.__main__ import app
from PIL import Image
from trainer.config import LocalConfig, TrainerConfig
from trainer.server import build
from typer.testing import CliRunner

from tests.trainer.conftest import encoded

TOKEN = "command-test-token"
STAND_IN = Path(__file__).parents[1] / "trainer" / "stand_in.py"
NOBODY = "127.0.0.1:9"


@dataclass(frozen=True)
class TrainerForCommands:
    """What a test of commands holds: stubs, the store behind them, and the commands themselves."""

    sessions: SessionServiceStub
    training: TrainingServiceStub
    store: ObjectStore

    def darkroom(self, *arguments: str) -> Any:
        """Run a command in this process; its output is no terminal."""
        return CliRunner().invoke(app, arguments)

    def session(self, name: str = "toy", num_photos: int = 1) -> str:
        """A new session with photos; its resource name."""
        wanted = session_pb2.Session(base_model="sd15-tiny", description="a toy")
        made = self.sessions.CreateSession(session_pb2.CreateSessionRequest(session_id=name, session=wanted))
        for number in range(num_photos):
            header = session_pb2.UploadImageHeader(session=made.name, filename=f"{number}.png")
            photo = encoded(Image.new("RGB", (64, 64), (40 * number, 90, 200)))
            parts = [
                session_pb2.UploadImageRequest(header=header),
                session_pb2.UploadImageRequest(chunk=photo),
            ]
            self.sessions.UploadImage(iter(parts))
        return str(made.name)

    def run(self, session: str, plan: str = "steps 5", run_id: str = "first", **settings: Any) -> training_pb2.Run:
        """A run whose stand-in program does what the plan says, watched to its end."""
        recipe = training_pb2.Recipe(
            sample_prompts=[plan],
            text_encoder=training_pb2.StageSettings(steps=0),
            unet=training_pb2.StageSettings(steps=5, learning_rate=1e-3),
            **settings,
        )
        request = training_pb2.CreateRunRequest(parent=session, recipe=recipe, run_id=run_id)
        name = self.training.CreateRun(request).name
        *_, last = self.training.WatchRun(training_pb2.WatchRunRequest(name=name))
        return last.run

    def record(self, run: str, stages: dict[str, list[float]]) -> None:
        """Replace what a run that is over has recorded by these losses, one list for each stage."""
        self.store.delete_prefix(f"{run}/events/")
        lines = []
        for stage, losses in stages.items():
            smoothed = losses[0]
            for step, loss in enumerate(losses, 1):
                smoothed += 0.02 * (loss - smoothed)
                place = {"kind": "progress", "stage": stage, "step": step, "num_steps": len(losses)}
                numbers = {"loss": loss, "smoothed_loss": smoothed, "learning_rate": 1e-3}
                pace = {"images_per_second": 5.0, "eta_seconds": 0.0}
                time = f"2026-01-01T00:{len(lines) // 60:02}:{len(lines) % 60:02}Z"
                lines.append(json.dumps({**place, **numbers, **pace, "time": time}))
        self.store.put(f"{run}/events/01-00000001.jsonl", "\n".join(lines).encode())


@pytest.fixture
def trainer(
    store: ObjectStore, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TrainerForCommands]:
    """A running trainer that `darkroom` commands find by their environment."""
    config = TrainerConfig(
        server=ServerConfig(token=TOKEN),
        store=replace(store.config, retries=1),
        local=LocalConfig(
            tmp_path / "state", backoff_seconds=0.01, poll_seconds=0.05, run_command=f"{sys.executable} {STAND_IN}"
        ),
        models=str(tiny_models),
        grace_seconds=2,
        stop_runs=True,
    )
    served = _Served(config)
    try:
        target = served.start()
        for name in ("CAPTIONER", "CONVERTER", "WEBUI", "HTTP"):
            monkeypatch.setenv(f"DARKROOM_{name}", NOBODY)
        monkeypatch.setenv("DARKROOM_TRAINER", target)
        monkeypatch.setenv("DARKROOM_TOKEN", TOKEN)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        with blocking_channel(target, TOKEN) as opened:
            yield TrainerForCommands(SessionServiceStub(opened), TrainingServiceStub(opened), store)
    finally:
        served.stop()


class _Served:
    """The trainer's server in a thread with an event loop of its own."""

    def __init__(self, config: TrainerConfig) -> None:
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._target: str = ""
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def start(self) -> str:
        """The address at which it answers."""
        self._thread.start()
        assert self._started.wait(60)
        return self._target

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server, trainer = build(self._config)
        async with running(server) as self._target:
            await trainer.load()
            self._started.set()
            await self._stopping.wait()
            await trainer.close()


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """The status of a failed call."""
    call: Any = error
    return call.code()
