"""The account of a training's pod may do nothing in the API, and its pod has no token to try."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cluster.harness import store as minio
from tests.cluster.harness.client import Cluster, CommandError
from tests.cluster.harness.layout import API_SERVICE_ADDRESS, API_URL
from tests.cluster.harness.pki import certificate
from tests.cluster.jobs_runs import Training, conditions, imaginary_place

ACCOUNT = "darkroom-dreambooth"
# What every account may ask: about itself, about the API's groups and versions, and whether the server lives.
EVERYBODY = {
    "selfsubjectreviews.authentication.k8s.io",
    "selfsubjectaccessreviews.authorization.k8s.io",
    "selfsubjectrulesreviews.authorization.k8s.io",
}
EVERYBODYS_PATHS = r"/api(/\*)?|/apis(/\*)?|/openapi(/\*)?|/healthz|/livez|/readyz|/version/?|/\.well-known/openid-configuration/?|/openid/v1/jwks/?"
# Run in place of the program, in the very pod of a Job: what it sees of the API.
LOOK = """
import json, os, ssl, sys, urllib.error, urllib.request
def status(path):
    try:
        return urllib.request.urlopen(sys.argv[1] + path, timeout=10, context=ssl._create_unverified_context()).status
    except urllib.error.HTTPError as error:
        return error.code
print(json.dumps({
    "token": os.path.exists("/var/run/secrets/kubernetes.io"),
    "answers": {path: status(path) for path in sys.argv[2:]},
}))
"""


@pytest.fixture
def training(cluster: Cluster, namespace: str, images_on_node: Callable[[str], str]) -> Training:
    """A Job under the account, as the chart makes it: without rights, and without a token."""
    images_on_node("dreambooth")
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": ACCOUNT},
        "automountServiceAccountToken": False,
    }
    cluster.apply(minio.credentials(namespace), account, namespace=namespace)
    return imaginary_place(cluster, namespace).training("looks", serviceAccountName=ACCOUNT)


def test_pod_has_no_token_and_is_told_nothing(training: Training) -> None:
    namespace = training.place.namespace
    here = f"/api/v1/namespaces/{namespace}"
    paths = (
        f"{here}/pods",
        f"{here}/secrets",
        f"{here}/secrets/{minio.SECRET}",
        "/api/v1/nodes",
        "/apis/batch/v1/jobs",
    )
    (container,) = training.objects[0]["spec"]["template"]["spec"]["containers"]
    container["command"] = ["python", "-c", LOOK, f"https://{API_SERVICE_ADDRESS}", *paths]
    with training.started():
        assert "Complete" in conditions(training.wait_for_end())
        seen = json.loads(training.kubectl("logs", f"job/{training.job}"))
    assert not seen["token"]
    assert set(seen["answers"]) == set(paths)
    assert set(seen["answers"].values()) <= {401, 403}, seen


def test_its_token_would_be_good_for_nothing(training: Training, cluster: Cluster, tmp_path: Path) -> None:
    namespace = training.place.namespace
    token = cluster.kubectl("create", "token", ACCOUNT, "--namespace", namespace).strip()
    holder = Cluster(kubeconfig_of(token, tmp_path / "kubeconfig"))
    listed = holder.kubectl("auth", "can-i", "--list", "--namespace", namespace).splitlines()[1:]
    resources = {line.split()[0] for line in listed if not line.startswith(" ")}
    paths = {path for line in listed if line.startswith(" ") for path in re.findall(r"\[(/\S*)\]", line)}
    assert resources == EVERYBODY
    assert paths
    assert [path for path in paths if not re.fullmatch(EVERYBODYS_PATHS, path)] == []
    for what in ("pods", "secrets", "jobs.batch", "configmaps", "events", "serviceaccounts"):
        with pytest.raises(CommandError, match="Forbidden"):
            holder.kubectl("get", what, "--namespace", namespace)


def kubeconfig_of(token: str, path: Path) -> Path:
    """A kubeconfig for the holder of a token, and of nothing else."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": API_URL, "certificate-authority": str(certificate("ca"))}}],
        "users": [{"name": "it", "user": {"token": token}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path
