"""A short training through the services of a release, and its Job as Kubernetes sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from darkroom.trainer.v1 import session_pb2, training_pb2
from darkroom_cli.clients import Clients, connect
from darkroom_cli.commands.session import upload_parts

from tests.cluster.chart_release import Release
from tests.cluster.harness.processes import wait_until

PHOTOS: Final = Path(__file__).parents[2] / "examples" / "photos"


def fill_session(clients: Clients, session: str) -> None:
    """A session with three photos."""
    request = session_pb2.CreateSessionRequest(session_id=session, session=session_pb2.Session(base_model="sd15-tiny"))
    clients.sessions.CreateSession(request)
    for path in sorted(PHOTOS.glob("*.png"))[:3]:
        clients.sessions.UploadImage(upload_parts(session, path.name, path.read_bytes()))


def start_run(clients: Clients, session: str, steps: int, batch_size: int = 1) -> str:
    """Begin a training; returns the run's name."""
    recipe = training_pb2.Recipe(
        base_model="sd15-tiny",
        instance_prompt="a photo of sks toy",
        text_encoder=training_pb2.StageSettings(steps=5, learning_rate=1e-5),
        unet=training_pb2.StageSettings(steps=steps, learning_rate=1e-4),
        batch_size=batch_size,
        seed=7,
    )
    request = training_pb2.CreateRunRequest(parent=f"sessions/{session}", recipe=recipe)
    return str(clients.training.CreateRun(request).name)


@dataclass(frozen=True)
class Running:
    """One run of a release, looked at through a port-forward of its own each time: the trainer may be another one by now."""

    release: Release
    name: str

    def look(self) -> training_pb2.Run:
        """The run as the trainer tells it."""
        with self.release.forwarded() as where, connect(where) as clients:
            return clients.training.GetRun(training_pb2.GetRunRequest(name=self.name))

    def wait(self, what: str, seen: Callable[[training_pb2.Run], bool], seconds: float = 400) -> training_pb2.Run:
        """Until the run is as wanted."""
        last = self.look()
        with self.release.forwarded() as where, connect(where) as clients:

            def ask() -> bool:
                last.CopyFrom(clients.training.GetRun(training_pb2.GetRunRequest(name=self.name)))
                return seen(last)

            wait_until(f"{self.name}: {what}", ask, seconds)
        return last

    def pod(self) -> dict[str, Any]:
        """The one pod that its Job has had."""
        selector = f"--selector=darkroom.dev/run={self.name.rsplit('/', 1)[1]}"
        (found,) = self.release.cluster.get("pods", "--namespace", self.release.training, selector)["items"]
        pod: dict[str, Any] = found
        return pod
