"""Trainings as Jobs on the real cluster: the bucket that they read, their run files, and following them to their end."""

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

import yaml
from artifacts.errors import NotFound, StoreRejected
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore, StoreConfig
from jobs.names import job_name
from jobs.render import render_all
from jobs.run_file import read_run

from tests.cluster.harness import store as minio
from tests.cluster.harness.binaries import binary
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.layout import NODE
from tests.cluster.harness.processes import wait_until
from tests.cluster.jobs_outcome import Attempt, attempts_of

ROOT: Final = Path(__file__).parents[2]
SESSION: Final = "pip"
BASE_MODEL: Final = "sd15-tiny"
RECIPE: Final[Mapping[str, Any]] = {
    "resolutionPx": 64,
    "instancePrompt": "a photo of sks toy",
    "seed": 7,
    "textEncoder": {"steps": 5, "learningRate": 1e-5},
    "unet": {"steps": 120, "learningRate": 1e-4, "schedule": "cosine"},
    "resumePointEverySteps": 15,
}
_SECONDS: Final = 400
"""For each wait, with several trainings at work on two cores."""


@contextmanager
def bucket(cluster: Cluster, namespace: str = minio.NAMESPACE, name: str = "") -> Iterator[ObjectStore]:
    """A bucket with a session and the tiny base model, in the MinIO of a namespace; removed at the end.

    name: a new one by default. What an ended test has left in a bucket of that name is removed first.
    """
    address = f"http://{cluster.cluster_ip(minio.SERVICE, namespace)}:{minio.PORT}"
    name = name or f"jobs-{secrets.token_hex(4)}"
    store = ObjectStore(StoreConfig(address, minio.ACCESS_KEY, minio.SECRET_KEY, name, retries=8))
    with suppress(StoreRejected):  # there is none
        store.delete_bucket()
    store.ensure_bucket()
    try:
        fill(store)
        yield store
    finally:
        store.delete_bucket()


def fill(store: ObjectStore) -> None:
    """The session with three images, and the base model."""
    sessions = Sessions(store)
    sessions.create(SESSION)
    for path in sorted((ROOT / "examples/photos").glob("*.png"))[:3]:
        sessions.put_image(SESSION, path.name, path.read_bytes())
    folder = ROOT / "models/tiny" / BASE_MODEL
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(f"models/{BASE_MODEL}/{path.relative_to(folder)}", path.read_bytes())


@dataclass(frozen=True)
class Place:
    """Where trainings go: a namespace with the store's Secret, and a bucket. endpoint: of the store, for pods."""

    cluster: Cluster
    namespace: str
    store: ObjectStore
    endpoint: str = minio.ENDPOINT

    def training(self, run: str, recipe: Mapping[str, Any] = RECIPE, **execution: Any) -> "Training":
        """A run of the session on the real node, with one GPU; keywords replace fields of its execution."""
        given = {
            "image": "localhost/darkroom-dreambooth:0.1.0",
            "imagePullPolicy": "Never",
            "store": {"endpoint": self.endpoint, "bucket": self.store.config.bucket},
            "storeSecret": {"name": minio.SECRET},
            "gpu": {"enabled": True},
            "device": "cpu",  # the node's GPUs are made up
            "nodeSelector": {"kubernetes.io/hostname": NODE},
            "resources": {"cpu": "100m", "memory": "2Gi"},
            "tmpSize": "4Gi",
            "shmSize": "64Mi",
            "graceSeconds": 60,
            **execution,
        }
        document = {
            "apiVersion": "darkroom.dev/v1",
            "kind": "TrainingRun",
            "metadata": {"name": run, "namespace": self.namespace},
            "spec": {"session": SESSION, "baseModel": BASE_MODEL, "recipe": recipe, "execution": given},
        }
        spec, made = read_run(yaml.safe_dump(document), run)
        return Training(self, spec.name, spec.checkpoint, render_all(spec, made))


def imaginary_place(cluster: Cluster, namespace: str) -> Place:
    """For Jobs whose program does not run: there is no bucket behind it."""
    return Place(cluster, namespace, ObjectStore(StoreConfig("localhost:1", "nobody", "nothing", "no-bucket")))


def remove_jobs(cluster: Cluster, namespace: str) -> None:
    """Remove the Jobs of a namespace with their pods, those on made-up nodes at once.

    kwok lets a deleted pod live for as long as its grace may take, and for ever while it has a Job; and a namespace that goes
    removes its pods before its Jobs.
    """
    here = ("--namespace", namespace)
    cluster.kubectl("delete", "jobs", "--all", *here)
    made_up = (f"--field-selector=spec.nodeName!={NODE}", "--force", "--grace-period=0")
    cluster.kubectl("delete", "pods", *made_up, *here)


@dataclass
class Training:
    """One run and its Job."""

    place: Place
    name: str
    checkpoint: str
    objects: list[dict[str, Any]]
    attempts: list[Attempt] = field(default_factory=list)
    """What became of each pod, in order; complete after `started`."""

    @property
    def job(self) -> str:
        """Name of the Job."""
        return job_name(self.name)

    @property
    def selector(self) -> str:
        """Selects the pods of the run."""
        return f"darkroom.dev/run={self.name.rsplit('/', 1)[1]}"

    @contextmanager
    def started(self) -> Iterator["Training"]:
        """Create the Job, and record everything that its pods go through while the block lasts."""
        command = [str(binary("kubectl")), "get", "pods", *self._here, f"--selector={self.selector}", "--output=json"]
        with (
            TemporaryFile("w+") as file,
            subprocess.Popen([*command, "--watch"], env=self.place.cluster.env, stdout=file) as watch,
        ):
            try:
                self.place.cluster.apply(*self.objects)
                yield self
                wait_until("all pods are seen to end", lambda: self._read(file), 60)
            finally:
                watch.terminate()

    def look(self) -> dict[str, Any]:
        """The Job."""
        return self.place.cluster.get("job", self.job, *self._here)

    def pods(self) -> list[dict[str, Any]]:
        """The pods that are there now, the oldest first."""
        found: list[dict[str, Any]] = self.kubectl_json("get", "pods", f"--selector={self.selector}")["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the namespace of the run."""
        return self.place.cluster.kubectl(*arguments, *self._here)

    def kubectl_json(self, *arguments: str) -> dict[str, Any]:
        """The same, parsed."""
        answer: dict[str, Any] = json.loads(self.kubectl(*arguments, "--output=json"))
        return answer

    def wait(self, what: str, seen: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Until the Job is as wanted."""
        return self.place.cluster.wait(f"{self.name}: {what}", seen, "job", self.job, *self._here, seconds=_SECONDS)

    def wait_for_end(self) -> dict[str, Any]:
        """Until the Job is Complete or Failed."""
        return self.wait("it ends", lambda job: bool({"Complete", "Failed"} & set(conditions(job))))

    def wait_for_step(self, step: int) -> None:
        """Until a resume point of the U-Net at this step or a later one is published, while the Job is not over."""
        self.wait(f"resume point at step {step}", lambda job: self._last_step(job) >= step)

    def _read(self, file: IO[str]) -> bool:
        """Read what was recorded; whether every pod has ended."""
        file.seek(0)
        self.attempts = attempts_of(file.read())
        return all(attempt.phase in ("Succeeded", "Failed") for attempt in self.attempts)

    def _last_step(self, job: dict[str, Any]) -> int:
        assert not {"Complete", "Failed"} & set(conditions(job)), f"{self.name} is over already: {job['status']}"
        try:
            points = json.loads(self.place.store.get(f"{self.name}/writer.json"))["points"]
        except NotFound:
            return -1
        return max((point["step"] for point in points if point["stage"] == "unet"), default=-1)

    @property
    def _here(self) -> tuple[str, str]:
        return "--namespace", self.place.namespace


def conditions(thing: Mapping[str, Any]) -> dict[str, str]:
    """The conditions that hold, with their reasons."""
    found = thing.get("status", {}).get("conditions", ())
    return {each["type"]: each.get("reason", "") for each in found if each["status"] == "True"}
