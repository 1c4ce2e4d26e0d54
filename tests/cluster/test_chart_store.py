"""The store of a release: the trial store on a volume that outlives it, and what is said when the store refuses."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from artifacts import weed
from darkroom.trainer.v1 import session_pb2
from darkroom_cli.clients import connect

from tests.cluster.chart_release import CHART, SERVICES, Release, bring_all, is_ready, objects_in, room
from tests.cluster.chart_training import fill_session
from tests.cluster.harness.client import Cluster, CommandError
from tests.cluster.harness.images import import_image, write_image
from tests.cluster.harness.layout import MINIO_IMAGE, STATE
from tests.cluster.harness.processes import wait_until
from tests.helm.test_operators_page import BLOCKS

pytestmark = pytest.mark.timeout(600)
USER = 10001
CLAIM = "data-darkroom-trial-store-0"
STORAGE_CLASS = "grows"
(SIZES,) = [text for _, mark, text in BLOCKS if mark == " e2e trial"]
SEAWEEDFS_IMAGE = "localhost/darkroom-seaweedfs:1"


def trial(example: str, image: str) -> tuple[str, ...]:
    """Arguments of Helm for a file of examples/ and the image of its store."""
    repository, _, tag = image.partition("/")[2].partition(":")
    return (
        f"--values={CHART / 'examples' / example}",
        "--set=images.registry=localhost",
        "--set=store.endpoint=",
        "--set=store.existingSecret=",
        "--set=trainer.namespace=",
        f"--set=trialStore.image.repository={repository}",
        f"--set-string=trialStore.image.tag={tag}",
    )


TRIAL = (*trial("values-trial.yaml", MINIO_IMAGE), f"--set=trialStore.persistence.storageClassName={STORAGE_CLASS}")


@pytest.fixture(scope="module", autouse=True)
def images(images_on_node: Callable[[str], str]) -> None:
    bring_all(images_on_node)


@pytest.fixture
def release(cluster: Cluster) -> Iterator[Release]:
    """Room for a release."""
    with room(cluster, "chart-store") as made:
        yield made


@pytest.fixture
def volume(release: Release) -> Iterator[None]:
    """A volume for the trial store's claim, and its StorageClass: the cluster has none that would make one."""
    folder = STATE / "volumes" / release.namespace
    folder.mkdir(parents=True)
    os.chown(folder, USER, USER)
    claim = {"namespace": release.namespace, "name": CLAIM}
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "20Gi"},
        "hostPath": {"path": str(folder), "type": "Directory"},
        "claimRef": claim,
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": STORAGE_CLASS,
    }
    kind: dict[str, Any] = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "allowVolumeExpansion": True}
    nobody = {"provisioner": "kubernetes.io/no-provisioner", "metadata": {"name": STORAGE_CLASS}}
    release.cluster.apply(kind | nobody)
    made: dict[str, Any] = {"apiVersion": "v1", "kind": "PersistentVolume", "spec": spec}
    release.cluster.apply(made | {"metadata": {"name": release.namespace}})
    yield
    release.helm("uninstall", "--ignore-not-found")  # else pods that are deleted come again
    release.kubectl("delete", "pods", "--all", "--grace-period=5")
    release.cluster.kubectl("delete", "persistentvolume", release.namespace, "--wait=false")
    release.cluster.kubectl("delete", "storageclass", STORAGE_CLASS)
    shutil.rmtree(folder)


def test_data_of_the_trial_store_outlives_the_release(release: Release, volume: None) -> None:
    before = objects_in(release.cluster, release.namespace)
    release.install(*TRIAL)
    assert len(release.pods()) == len(SERVICES) + 1
    assert all(map(is_ready, release.pods()))
    first = release.token
    with release.forwarded() as where, connect(where) as clients:
        fill_session(clients, "kept")
    grow(release)
    release.helm("uninstall", "--wait")
    kept = {f"{release.namespace}/persistentvolumeclaim/{CLAIM}"}
    wait_until(
        "all but the volume's claim is gone",
        lambda: objects_in(release.cluster, release.namespace) - before == kept,
        120,
    )

    again = Release(release.cluster, release.name, release.namespace, release.training, release.bucket)
    again.install(*TRIAL)
    assert again.token != first
    with again.forwarded() as where, connect(where) as clients:
        found = clients.sessions.ListSessions(session_pb2.ListSessionsRequest()).sessions
    assert [session.name for session in found] == ["sessions/kept"]
    assert "Phase:          Succeeded" in again.helm("test", "--timeout=5m")


def grow(release: Release) -> None:
    """As docs/operators.md says."""
    env = release.cluster.env | {"NAMESPACE": release.namespace, "RELEASE": release.name}
    command = ["bash", "-euo", "pipefail", "-c", SIZES]
    done = subprocess.run(command, cwd=CHART.parents[1], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    wanted = release.cluster.get("pvc", CLAIM, "--namespace", release.namespace)["spec"]["resources"]["requests"]
    assert wanted == {"storage": "50Gi"}


def test_a_trial_on_seaweedfs(release: Release, tmp_path: Path) -> None:
    archive = tmp_path / "seaweedfs.tar"
    write_image(archive, SEAWEEDFS_IMAGE, {"weed": Path(weed.binary())}, ["/weed"])
    import_image(archive)
    example = trial("values-trial-seaweedfs.yaml", SEAWEEDFS_IMAGE)
    release.install(*example, "--set=trialStore.persistence.enabled=false")
    with release.forwarded() as where, connect(where) as clients:
        fill_session(clients, "weeds")
    assert "Phase:          Succeeded" in release.helm("test", "--timeout=5m")


def test_wrong_credentials_are_told_by_the_hook(release: Release) -> None:
    wrong = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "wrong"},
        "stringData": {"access-key": "nobody", "secret-key": "nothing-at-all"},
    }
    release.cluster.apply(wrong, namespace=release.namespace)
    with pytest.raises(CommandError) as failed:
        release.install("--set=store.existingSecret=wrong", "--set=store.setup.backoffLimit=0")
    assert "bucket-setup" in failed.value.stderr
    said = release.kubectl("logs", f"job/{release.fullname}-bucket-setup")
    assert "refused access" in said
    assert "DARKROOM_S3_ACCESS_KEY" in said
    assert release.pods() == [] or all("bucket-setup" in pod["metadata"]["name"] for pod in release.pods())


def test_missing_values_are_told_before_anything_is_there(release: Release) -> None:
    before = objects_in(release.cluster, release.namespace)
    with pytest.raises(CommandError, match=r"store\.endpoint is empty"):
        release.install("--set=store.endpoint=")
    with pytest.raises(CommandError, match="gpus"):
        release.install("--set=captioner.gpus.enabled=true")
    assert objects_in(release.cluster, release.namespace) == before
