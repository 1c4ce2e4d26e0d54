"""`kubectl apply` of each file of examples/jobs, and of what `darkroom render` makes of its run file, does what it says.

Those without a GPU really train on the real node; the others land on made-up nodes with the GPUs that they name.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from jobs.manifest import environment_of

from tests.cluster.harness import store as minio
from tests.cluster.harness.client import Cluster, CommandError
from tests.cluster.harness.layout import NODE
from tests.cluster.jobs_outcome import records_of
from tests.cluster.jobs_runs import ROOT, SESSION, bucket, conditions, remove_jobs

pytestmark = pytest.mark.timeout(600)

TRAIN = ("tiny", "two-pods")
# In two pods one update is made of the batches of both.
UPDATES = {
    "tiny": "1 images an update (1 x 1 micro-steps x 1 process",
    "two-pods": "4 images an update (2 x 1 micro-steps x 2 process",
}
ONLY_PLACED = {
    "face": ("gpu-a100",),  # 16384 MiB are more than a T4 has, and 4 CPUs more than the real node
    "mig": ("gpu-mig",),
    "queue": ("gpu-a100", "gpu-t4"),
}
_SECONDS = 300


@pytest.fixture(scope="module")
def store(cluster: Cluster, images_on_node: Callable[[str], str]) -> Iterator[ObjectStore]:
    """The bucket that the examples name, with the session and the base model that they need."""
    images_on_node("dreambooth")
    with bucket(cluster, name="darkroom") as found:
        yield found


@pytest.fixture
def prepared(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A namespace with what the examples need in it: the store's Secret."""
    cluster.apply(minio.credentials(namespace))
    yield namespace
    remove_jobs(cluster, namespace)


def file_of(name: str) -> Path:
    """The Job of an example."""
    return ROOT / "examples/jobs" / f"{name}.yaml"


def job_of(name: str) -> dict[str, Any]:
    """The Job in the file, which is its last object."""
    found: dict[str, Any] = list(yaml.safe_load_all(file_of(name).read_text()))[-1]
    return found


def pods_of(cluster: Cluster, name: str, namespace: str) -> list[dict[str, Any]]:
    """The pods of an example's Job, in order of their numbers."""
    query = (
        "pods",
        "--namespace",
        namespace,
        f"--selector=darkroom.dev/run={job_of(name)['metadata']['labels']['darkroom.dev/run']}",
    )
    pods: list[dict[str, Any]] = cluster.get(*query)["items"]
    return sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))


def spec_and_generation(cluster: Cluster, name: str, namespace: str) -> tuple[str, int]:
    """What changes when somebody changes the Job."""
    found = cluster.get("job", job_of(name)["metadata"]["name"], "--namespace", namespace)
    return json.dumps(found["spec"], sort_keys=True), found["metadata"]["generation"]


def test_every_example_is_tested() -> None:
    assert {path.stem for path in (ROOT / "examples/jobs").iterdir()} == {*TRAIN, *ONLY_PLACED}


@pytest.mark.parametrize("name", TRAIN)
def test_trains_to_the_end_as_its_comment_says(cluster: Cluster, store: ObjectStore, prepared: str, name: str) -> None:
    cluster.kubectl("apply", "--namespace", prepared, "--filename", str(file_of(name)))
    job = job_of(name)
    query = ("job", job["metadata"]["name"], "--namespace", prepared)
    ended = cluster.wait(
        "it ends", lambda found: bool({"Complete", "Failed"} & set(conditions(found))), *query, seconds=_SECONDS
    )
    assert "Complete" in conditions(ended), cluster.kubectl("logs", "--namespace", prepared, f"job/{query[1]}")
    assert ended["status"].get("failed", 0) == 0
    pods = pods_of(cluster, name, prepared)
    assert [pod["spec"]["nodeName"] for pod in pods] == [NODE] * job["spec"]["completions"]

    recipe = json.loads(environment_of(job)["DARKROOM_RECIPE"])
    run = environment_of(job)["DARKROOM_RUN"]
    steps = [line["step"] for line in records_of(store, run) if line["kind"] == "progress" and line["stage"] == "unet"]
    assert steps == list(range(1, recipe["unet"]["steps"] + 1))
    assert Checkpoints(store).verify(recipe["checkpoint"]).session == SESSION
    messages = " ".join(line["text"] for line in records_of(store, run) if line["kind"] == "message")
    assert UPDATES[name] in messages
    samples = [line for line in records_of(store, run) if line["kind"] == "sample"]
    assert len(samples) >= len(recipe["sample_prompts"])


@pytest.mark.parametrize("name", ONLY_PLACED)
def test_lands_where_its_comment_says(cluster: Cluster, prepared: str, name: str) -> None:
    cluster.kubectl("apply", "--namespace", prepared, "--filename", str(file_of(name)))
    cluster.wait(
        f"{name} is placed",
        lambda _: any(pod["spec"].get("nodeName") for pod in pods_of(cluster, name, prepared)),
        "namespace",
        prepared,
    )
    (pod,) = pods_of(cluster, name, prepared)
    assert pod["spec"]["nodeName"] in ONLY_PLACED[name]


def test_without_kueue_its_labels_mean_nothing(cluster: Cluster, prepared: str) -> None:
    cluster.kubectl("apply", "--namespace", prepared, "--filename", str(file_of("queue")))
    found = cluster.get("job", job_of("queue")["metadata"]["name"], "--namespace", prepared)
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "trainings"
    assert not found["spec"]["suspend"]


@pytest.mark.parametrize("name", [*TRAIN, *ONLY_PLACED])
def test_a_second_apply_and_its_run_file_change_nothing(cluster: Cluster, prepared: str, name: str) -> None:
    apply = ("apply", "--namespace", prepared, "--filename")
    cluster.kubectl(*apply, str(file_of(name)))
    before = spec_and_generation(cluster, name, prepared)
    again = cluster.kubectl(*apply, str(file_of(name)))
    command = [sys.executable, "-m", "darkroom_cli", "render", str(ROOT / "examples/runs" / f"{name}.yaml")]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    piped = cluster.kubectl(*apply, "-", stdin=rendered)
    assert again == piped
    assert {line.split()[-1] for line in again.splitlines()} == {"unchanged"}
    assert spec_and_generation(cluster, name, prepared) == before


def test_a_changed_file_with_the_same_run_is_refused(cluster: Cluster, prepared: str) -> None:
    apply = ("apply", "--namespace", prepared, "--filename")
    text = file_of("mig").read_text()
    cluster.kubectl(*apply, "-", stdin=text)
    changed = text.replace('"seed": 0', '"seed": 1')
    assert changed != text
    with pytest.raises(CommandError, match="field is immutable"):
        cluster.kubectl(*apply, "-", stdin=changed)
