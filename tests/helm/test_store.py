"""The bucket's set-up, the policies of each service, and the trial store."""

import fnmatch
import json
import re
from typing import Any

import pytest

from tests.helm import chart

PAGE = chart.CHART.parents[1] / "docs" / "operators.md"
SERVICES = ("captioner", "trainer", "dreambooth", "converter", "webui-gateway", "webui-engine", "bucket-setup")

# What a training's pod puts below its run, and what the trainer keeps below runs/.
RECORDED = (
    "writer.json",
    "events/01-00000001.jsonl",
    "resume_points/1-0-0000010/manifest.json",
    "samples/unet-000010-0.png",
    "tensorboard/samples/events.1",
)
TRAINERS_OWN = ("r1/job.json", "r1/status.json", "active.json", "r1/cancel.json", "r1/suspend.json", "r1/log.txt")


def policy(service: str) -> list[dict[str, Any]]:
    """The statements of a service's policy document."""
    data = chart.find(chart.rendered("minimal"), "ConfigMap", "store-policies")["data"]
    document = json.loads(data[f"{service}.json"])
    assert document["Version"] == "2012-10-17"
    statements: list[dict[str, Any]] = document["Statement"]
    return statements


def may(service: str, action: str, key: str) -> bool:
    """Whether a policy allows an action on an object, by the rules of S3."""
    return any(
        action in statement["Action"]
        and any(fnmatch.fnmatchcase(f"arn:aws:s3:::darkroom/{key}", one) for one in statement["Resource"])
        for statement in policy(service)
        if "Condition" not in statement
    )


def prefixes(service: str, verb: str) -> set[str]:
    """Prefixes of the objects that a service may get, put or delete, or list."""
    action = {"get": "s3:GetObject", "put": "s3:PutObject", "delete": "s3:DeleteObject", "list": "s3:ListBucket"}[verb]
    found = [statement for statement in policy(service) if action in statement["Action"]]
    if verb == "list":
        listed = [one["Condition"]["StringLike"]["s3:prefix"] for one in found if "StringLike" in one["Condition"]]
        return {prefix.removesuffix("*") for some in listed for prefix in some}
    return {
        one.removeprefix("arn:aws:s3:::darkroom/").removesuffix("*")
        for statement in found
        for one in statement["Resource"]
    }


def test_there_is_a_document_for_each_service() -> None:
    data = chart.find(chart.rendered("minimal"), "ConfigMap", "store-policies")["data"]
    assert set(data) == {f"{service}.json" for service in SERVICES}


@pytest.mark.parametrize("service", SERVICES)
def test_the_documents_are_those_of_the_table(service: str) -> None:
    row = re.search(rf"^\| {service} \|([^|]*)\|([^|]*)\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    assert row, f"docs/operators.md has no row for {service}"
    reads, writes, removes = ({*re.findall(r"`([^`]+)`", cell)} for cell in row.groups())
    assert prefixes(service, "get") == prefixes(service, "list") == reads
    assert prefixes(service, "put") == writes
    assert prefixes(service, "delete") == removes


@pytest.mark.parametrize(
    ("service", "action", "key", "is_allowed"),
    [
        ("captioner", "s3:GetObject", "sessions/cat/instance_images/1.png", True),
        ("captioner", "s3:PutObject", "sessions/cat/captions/1.txt", True),
        ("captioner", "s3:PutObject", "sessions/cat/instance_images/1.png", False),
        ("captioner", "s3:GetObject", "checkpoints/a/manifest.json", False),
        *(("dreambooth", "s3:PutObject", f"sessions/cat/runs/r1/{key}", True) for key in RECORDED),
        *(("dreambooth", "s3:PutObject", f"sessions/cat/runs/{key}", False) for key in TRAINERS_OWN),
        *(("dreambooth", "s3:DeleteObject", f"sessions/cat/runs/{key}", False) for key in TRAINERS_OWN),
        ("dreambooth", "s3:PutObject", "sessions/cat/runs/r1/writer.json.old", False),
        ("dreambooth", "s3:PutObject", "sessions/cat/class_images/a-man/1.png", True),
        ("dreambooth", "s3:PutObject", "checkpoints/a/manifest.json", True),
        ("dreambooth", "s3:DeleteObject", "sessions/cat/runs/r1/resume_points/1-0-0000010/manifest.json", True),
        ("dreambooth", "s3:DeleteObject", "sessions/cat/runs/r1/tensorboard/events.1", True),
        ("dreambooth", "s3:DeleteObject", "sessions/cat/runs/r1/events/01-00000001.jsonl", False),
        ("trainer", "s3:PutObject", "sessions/cat/runs/r1/status.json", True),
        ("dreambooth", "s3:PutObject", "sessions/cat/session.json", False),
        ("dreambooth", "s3:PutObject", "sessions/cat/instance_images/1.png", False),
        ("dreambooth", "s3:DeleteObject", "sessions/cat/instance_images/1.png", False),
        ("webui-engine", "s3:PutObject", "checkpoints/a/manifest.json", False),
        ("webui-gateway", "s3:GetObject", "sessions/cat/session.json", False),
        ("converter", "s3:GetObject", "sessions/cat/session.json", False),
        ("bucket-setup", "s3:DeleteObject", "models/sd15/model_index.json", False),
    ],
)
def test_a_service_may_what_it_does_and_nothing_else(service: str, action: str, key: str, is_allowed: bool) -> None:
    assert may(service, action, key) is is_allowed


@pytest.mark.parametrize("service", SERVICES)
def test_no_policy_allows_everything(service: str) -> None:
    for statement in policy(service):
        assert statement["Effect"] == "Allow"
        assert not [action for action in statement["Action"] if "*" in action]
        assert "arn:aws:s3:::darkroom/*" not in statement["Resource"]


@pytest.mark.parametrize(
    ("name", "hooks"), [("minimal", "pre-install,pre-upgrade"), ("trial", "post-install,post-upgrade")]
)
def test_the_set_up_is_a_hook_that_leaves_nothing(name: str, hooks: str) -> None:
    job = chart.find(chart.rendered(name), "Job", "bucket-setup")
    annotations = job["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == hooks
    # An old Job would be in the way of a new one; one that succeeded would stay after the release is gone.
    assert set(annotations["helm.sh/hook-delete-policy"].split(",")) == {"before-hook-creation", "hook-succeeded"}
    spec = job["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (5, 600, 86400)
    assert spec["template"]["spec"]["containers"][0]["args"] == ["bucket", "setup", "--models=/models/tiny"]


def test_everything_the_set_up_needs_is_there_before_the_release() -> None:
    """A hook before the install can use neither an account nor a Secret of the release."""
    pod = chart.pod(chart.rendered("minimal"), "bucket-setup")
    assert "serviceAccountName" not in pod.spec
    (secret,) = (volume["secret"]["secretName"] for volume in pod.spec["volumes"] if "secret" in volume)
    assert secret == "darkroom-store"
    network = chart.find(chart.rendered("minimal"), "NetworkPolicy", "bucket-setup")["metadata"]["annotations"]
    job = chart.find(chart.rendered("minimal"), "Job", "bucket-setup")["metadata"]["annotations"]
    assert network["helm.sh/hook"] == job["helm.sh/hook"]
    assert int(network["helm.sh/hook-weight"]) < int(job["helm.sh/hook-weight"])


def test_the_set_up_uploads_nothing_without_tiny_models() -> None:
    pod = chart.pod(chart.rendered("alternatives"), "bucket-setup")
    assert pod.main["args"] == ["bucket", "setup"]
    (secret,) = (volume["secret"]["secretName"] for volume in pod.spec["volumes"] if "secret" in volume)
    assert secret == "store-admin"


def test_each_service_may_have_credentials_of_its_own() -> None:
    def secret(component: str) -> str:
        pod = chart.pod(chart.rendered("alternatives"), component)
        (volume,) = (one for one in pod.spec["volumes"] if one["name"] == "store")
        found: str = volume["secret"]["secretName"]
        return found

    assert (secret("captioner"), secret("converter")) == ("captioner-store", "darkroom-store")


def test_the_trial_store_is_used_by_everybody() -> None:
    objects = chart.rendered("trial")
    service = chart.find(objects, "Service", "trial-store")
    url = f"http://{service['metadata']['name']}.{chart.NAMESPACE}.svc:{service['spec']['ports'][0]['port']}"
    with_store = [pod for pod in chart.pods(objects) if "DARKROOM_S3_ENDPOINT" in pod.env()]
    assert len(with_store) == 6
    assert {pod.env()["DARKROOM_S3_ENDPOINT"] for pod in with_store} == {url}
    secret = chart.find(objects, "Secret", "trial-store")
    assert set(secret["data"]) == {"access-key", "secret-key"}
    server = chart.pod(objects, "trial-store").main["env"]
    assert {one["name"]: one["valueFrom"]["secretKeyRef"]["key"] for one in server if "valueFrom" in one} == {
        "MINIO_ROOT_USER": "access-key",
        "MINIO_ROOT_PASSWORD": "secret-key",
    }


def test_data_of_the_trial_store_outlive_the_release() -> None:
    stateful = chart.find(
        chart.render("trial", overrides={"trialStore": {"persistence": {"enabled": True}}}),
        "StatefulSet",
        "trial-store",
    )
    assert stateful["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"


def test_off_leaves_no_trace_of_a_store() -> None:
    assert "trial-store" not in chart.template("minimal")
    assert not [
        item for item in chart.rendered("few") if item["kind"] == "Job" or "policies" in item["metadata"]["name"]
    ]
