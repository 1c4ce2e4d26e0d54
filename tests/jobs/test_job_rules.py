"""The rules that no schema states, held against Jobs with one thing wrong, and the schemas of each version of Kubernetes."""

import copy
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
from jobs.execution import Execution, Gpu, StoreAddress, StoreSecret
from jobs.render import render_all

from tests.jobs.job_rules import problems
from tests.jobs.test_render import CLUSTER, SPEC

VERSIONS = ("1.33", "1.34", "1.35", "1.36", "1.37")
EXECUTIONS = {
    "least": Execution(store=StoreAddress("s:1"), store_secret=StoreSecret("k")),
    "gpu": CLUSTER,
    "everything": Execution(
        image="registry.test/darkroom-dreambooth@sha256:" + "0" * 64,
        image_pull_policy="Always",
        image_pull_secrets=("pull",),
        namespace="training",
        service_account_name="darkroom-dreambooth",
        store=StoreAddress("https://s3.test", "bucket", "eu-1"),
        store_secret=StoreSecret("k", "a", "b"),
        gpu=Gpu(True, 2, "nvidia.com/gpu", "nvidia", 40000, ("A100", "H100")),
        node_selector={"pool": "gpu"},
        tolerations=({"key": "spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"},),
        affinity={"podAffinity": {}},
        priority_class_name="training",
        topology_spread_constraints=(
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}},
        ),
        queue_name="gpus",
        queue_priority_class="low",
        nodes=3,
        labels={"team": "pictures"},
        annotations={"example.test/cost": "7"},
        env={"DARKROOM_LOG_LEVEL": "debug"},
    ),
    "claim": Execution(
        store=StoreAddress("s:1"),
        store_secret=StoreSecret("k"),
        gpu=Gpu(True, resource_claim_template_name="one-gpu"),
    ),
}


@pytest.mark.parametrize("execution", EXECUTIONS.values(), ids=EXECUTIONS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_kubernetes_knows_every_field(execution: Execution, version: str) -> None:
    for each in render_all(SPEC, execution):
        assert kubernetes_validate.validate(each, version, strict=True) == version


@pytest.mark.parametrize("execution", EXECUTIONS.values(), ids=EXECUTIONS)
def test_what_is_rendered_keeps_the_rules(execution: Execution) -> None:
    assert problems(render_all(SPEC, execution)) == []


def _pod(job: Any) -> Any:
    return job["spec"]["template"]["spec"]


def _codes(job: Any) -> Any:
    return job["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]


WRONG: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "restart": (lambda job, service: _pod(job).update(restartPolicy="OnFailure"), "restartPolicy Never"),
    "replacement": (
        lambda job, service: job["spec"].update(podReplacementPolicy="TerminatingOrFailed"),
        "podReplacementPolicy Failed",
    ),
    "no policy": (lambda job, service: job["spec"].pop("podFailurePolicy"), "no podFailurePolicy"),
    "unsorted": (lambda job, service: _codes(job).update(values=[78, 64]), "sorted"),
    "success": (lambda job, service: _codes(job).update(values=[0, 64]), "exit code 0"),
    "container": (lambda job, service: _codes(job).update(containerName="other"), "no container 'other'"),
    "status": (
        lambda job, service: job["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0].pop("status"),
        "without status",
    ),
    "name": (lambda job, service: job["metadata"].update(name="n" * 60), "too long"),
    "label": (lambda job, service: job["metadata"]["labels"].update(team="a b"), "label team"),
    "parallelism": (lambda job, service: job["spec"].update(parallelism=1), "run together"),
    "address": (
        lambda job, service: service["spec"].pop("clusterIP") and service["spec"].update(clusterIP=""),
        "headless",
    ),
    "not ready": (lambda job, service: service["spec"].pop("publishNotReadyAddresses"), "not ready"),
    "selector": (lambda job, service: service["spec"]["selector"].update(app="x"), "does not select"),
    "subdomain": (lambda job, service: _pod(job).pop("subdomain"), "no Service"),
    "root": (lambda job, service: _pod(job)["securityContext"].update(runAsUser=0), "high number"),
    "token": (lambda job, service: _pod(job).pop("automountServiceAccountToken"), "token"),
    "writable": (
        lambda job, service: _pod(job)["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"),
        "write to its root",
    ),
    "memory": (
        lambda job, service: _pod(job)["containers"][0]["resources"]["limits"].update(memory="17Gi"),
        "the same in request and limit",
    ),
    "half a gpu": (
        lambda job, service: _pod(job)["containers"][0]["resources"]["limits"].update({"nvidia.com/gpu": "0.5"}),
        "whole number",
    ),
    "shm": (lambda job, service: _pod(job)["volumes"][1]["emptyDir"].update(sizeLimit="16Gi"), "all memory"),
    "unmounted": (lambda job, service: _pod(job)["containers"][0]["volumeMounts"].pop(), "do not fit"),
    "host path": (lambda job, service: _pod(job)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "type"),
    "gt": (
        lambda job, service: _pod(job)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ][0]["matchExpressions"][0].update(values=["40Gi"]),
        "needs one whole number",
    ),
    "ttl": (lambda job, service: job["spec"].pop("ttlSecondsAfterFinished"), "for ever"),
    "suspend": (lambda job, service: job["spec"].update(suspend=True), "Kueue itself"),
    "chart": (
        lambda job, service: job["spec"]["template"]["metadata"]["labels"].update({"helm.sh/chart": "darkroom-1"}),
        "change with the chart",
    ),
    "secret": (
        lambda job, service: _pod(job)["containers"][0]["env"].append(
            {"name": "DARKROOM_S3_SECRET_KEY", "value": "hunter2"}
        ),
        "secret in the environment",
    ),
}


@pytest.mark.parametrize(("spoil", "expected"), WRONG.values(), ids=WRONG)
def test_the_rules_find_what_is_wrong(spoil: Callable[[Any, Any], Any], expected: str) -> None:
    service, job = copy.deepcopy(render_all(SPEC, EXECUTIONS["everything"]))
    spoil(job, service)
    assert expected in "; ".join(problems([service, job]))


@pytest.mark.parametrize("spoiled", ["restart", "replacement"])
def test_the_schemas_alone_would_not_notice(spoiled: str) -> None:
    service, job = copy.deepcopy(render_all(SPEC, EXECUTIONS["everything"]))
    WRONG[spoiled][0](job, service)
    assert kubernetes_validate.validate(job, VERSIONS[-1], strict=True) == VERSIONS[-1]


def test_the_schemas_notice_a_field_that_there_is_not() -> None:
    (job,) = copy.deepcopy(render_all(SPEC, CLUSTER))
    job["spec"]["podFailurePolicies"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="podFailurePolicies"):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)
