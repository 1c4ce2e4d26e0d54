"""Every pod, hooks, Jobs and tests included, passes Pod Security "restricted", and what Darkroom asks beyond it."""

from collections.abc import Iterator

import pytest

from tests.helm import chart
from tests.helm.chart import VALUE_SETS, Object, Pod

ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
FORBIDDEN_POD_FIELDS = ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "ephemeralContainers")
LOWEST_UID = 10000


def restricted(pod: Pod) -> Iterator[str]:
    """What Pod Security Standards, level restricted, refuse."""
    security = pod.spec.get("securityContext", {})
    for field in FORBIDDEN_POD_FIELDS:
        if pod.spec.get(field):
            yield field
    if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    if security.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if security.get("runAsUser") == 0 or security.get("sysctls"):
        yield "runAsUser or sysctls"
    for volume in pod.spec.get("volumes", ()):
        if set(volume) - {"name"} - ALLOWED_VOLUMES:
            yield f"volume {volume}"
    for container in pod.containers():
        yield from (f"{container['name']}: {text}" for text in _restricted_container(container))


def _restricted_container(container: Object) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if security.get("capabilities", {}).get("drop") != ["ALL"] or security["capabilities"].get("add"):
        yield "capabilities"
    for field in ("privileged", "procMount", "windowsOptions"):
        if security.get(field):
            yield field
    if security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False:
        yield "runs as root"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"


def ours(pod: Pod, is_uid_written: bool) -> Iterator[str]:
    """What Darkroom asks beyond the standard."""
    security = pod.spec["securityContext"]
    if is_uid_written and min(security.get(f, 0) for f in ("runAsUser", "runAsGroup", "fsGroup")) < LOWEST_UID:
        yield f"user or group below {LOWEST_UID}"
    if pod.spec.get("automountServiceAccountToken") is not (pod.component == "trainer"):
        yield "a token of the ServiceAccount, or none for the trainer"
    for container in pod.containers():
        yield from (f"{container['name']}: {text}" for text in _ours_container(container))
    for volume in pod.spec.get("volumes", ()):
        if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
            yield f"volume {volume['name']} without limit"


TRIAL_STORE = "store"
"""Its servers read the credentials that they shall ask for from their environment only."""


def _ours_container(container: Object) -> Iterator[str]:
    if container["securityContext"].get("readOnlyRootFilesystem") is not True:
        yield "writable root"
    if "/tmp" not in {mount["mountPath"] for mount in container["volumeMounts"]}:
        yield "no /tmp"
    resources = container["resources"]
    if not {"cpu", "memory"} <= set(resources["requests"]) or "memory" not in resources["limits"]:
        yield "resources"
    if container["name"] == TRIAL_STORE:
        return
    for item in container.get("env", ()):
        if item["name"].endswith(("TOKEN", "SECRET_KEY", "ACCESS_KEY")):
            yield f"{item['name']} in the environment"


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_pod_is_restricted(name: str) -> None:
    assert {pod.name: found for pod in chart.pods(chart.rendered(name)) if (found := list(restricted(pod)))} == {}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_pod_is_as_we_promise(name: str) -> None:
    is_uid_written = name != "alternatives"  # where a platform assigns the ids
    objects = chart.rendered(name)
    found = {pod.name: problems for pod in chart.pods(objects) if (problems := list(ours(pod, is_uid_written)))}
    assert found == {}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_services_have_all_probes_and_others_need_none(name: str) -> None:
    for pod in chart.pods(chart.rendered(name)):
        probes = {"startupProbe", "readinessProbe", "livenessProbe"} & set(pod.main)
        assert len(probes) == (3 if pod.owner["kind"] in ("Deployment", "StatefulSet") else 0), pod.name


def test_all_kinds_of_pods_were_seen() -> None:
    kinds = {pod.owner["kind"] for name in VALUE_SETS for pod in chart.pods(chart.rendered(name))}
    assert kinds == {"Deployment", "StatefulSet", "Job", "Pod"}


def test_the_checker_sees_what_is_wrong() -> None:
    (pod,) = chart.pods([
        {
            "kind": "Pod",
            "metadata": {"name": "bad", "labels": {}},
            "spec": {"hostNetwork": True, "volumes": [{"name": "a", "hostPath": {}}], "containers": [{"name": "c"}]},
        }
    ])  # fmt: skip
    assert len(list(restricted(pod))) == 6


@pytest.mark.parametrize("name", VALUE_SETS)
def test_accounts_give_no_token_by_themselves(name: str) -> None:
    accounts = [item for item in chart.rendered(name) if item["kind"] == "ServiceAccount"]
    assert all(account["automountServiceAccountToken"] is False for account in accounts)
    used = {
        pod.spec["serviceAccountName"] for pod in chart.pods(chart.rendered(name)) if "serviceAccountName" in pod.spec
    }
    assert used <= {account["metadata"]["name"] for account in accounts}


def test_only_the_trainer_is_bound_and_only_to_what_it_uses() -> None:
    objects = chart.rendered("everything")
    (role,) = (item for item in objects if item["kind"] == "Role")
    (binding,) = (item for item in objects if item["kind"] == "RoleBinding")
    assert not [item for item in objects if item["kind"].startswith("Cluster")]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "training"
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "demo-darkroom-trainer", "namespace": chart.NAMESPACE}
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    rights = {
        f"{group}/{resource}": rule["verbs"]
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert rights == {
        "batch/jobs": ["get", "list", "watch", "create", "delete", "patch"],
        "/pods": ["list", "watch"],
        "/pods/log": ["get"],
        "/events": ["list"],
        "/services": ["create"],
    }
