"""A control plane for all tests of this folder; for each test a namespace, a bucket, and trainers that use both."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from artifacts.store import ObjectStore
from chassis.config import ServerConfig
from PIL import Image
from trainer.config import LocalConfig, TrainerConfig

from tests.cluster.control_plane.kubelet import Kubelet, node
from tests.cluster.control_plane.plane import TRAINER, Plane, free_port, until
from tests.trainer.conftest import TOKEN, encoded

# What the trainer may do, and nothing else: docs/training-jobs.md, Permissions.
RULES: list[dict[str, Any]] = [
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "watch", "create", "delete", "patch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["create"]},
]


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """The control plane, with one node that has two GPUs."""
    made = Plane(tmp_path_factory.mktemp("plane"), free_port(), free_port())
    try:
        made.start()
        made.ask("POST", "/api/v1/nodes", node("worker", gpus=2))
        # The API server taints a new node until its lifecycle controller, which is not here, has seen it.
        made.kubectl("taint", "node", "worker", "node.kubernetes.io/not-ready-")
        yield made
    finally:
        made.stop()


@pytest.fixture
def namespace(plane: Plane, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace in which the trainer may do what it has to."""
    stem = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[5:40].strip("-")
    name = f"{stem}-{secrets.token_hex(3)}"
    plane.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "t"}, "rules": RULES}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "t"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "t"},
        "subjects": [{"kind": "User", "name": "trainer", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    plane.apply(role, binding, namespace=name)
    account = f"/api/v1/namespaces/{name}/serviceaccounts"
    until("the namespace has its account", lambda: plane.ask("GET", account)["items"])
    yield name
    plane.ask("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def kubelet(plane: Plane, namespace: str) -> Iterator[Kubelet]:
    """Plays the node of this namespace's pods."""
    made = Kubelet(plane, namespace)
    yield made
    made.stop()


@pytest.fixture
def execution(tmp_path: Path, namespace: str) -> dict[str, Any]:
    """What the trainer's execution.yaml says; change it before `config` is used."""
    return {
        "image": "registry.example/darkroom-dreambooth:0.1.0",
        "namespace": namespace,
        "store": {"endpoint": "http://store:9000"},
        "storeSecret": {"name": "darkroom-store"},
        "resources": {"cpu": "100m", "memory": "1Gi"},
        "shmSize": "64Mi",
        "tmpSize": "1Gi",
        "graceSeconds": 2,
    }


@pytest.fixture
def config(
    store: ObjectStore,
    plane: Plane,
    execution: dict[str, Any],
    tiny_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> TrainerConfig:
    """A trainer of the cluster."""
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig(TRAINER)))
    path = tmp_path / "execution.yaml"
    path.write_text(yaml.safe_dump(execution))
    return TrainerConfig(
        server=ServerConfig(token=TOKEN),
        store=replace(store.config, retries=1),
        local=LocalConfig(tmp_path / "state", poll_seconds=0.1),
        backend="kubernetes",
        execution=str(path),
        models=str(tiny_models),
    )


@pytest.fixture
def photo() -> bytes:
    """A picture to train on."""
    return encoded(Image.radial_gradient("L").resize((96, 64)).convert("RGB"))
