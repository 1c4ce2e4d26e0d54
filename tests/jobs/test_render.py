"""The one renderer: the whole manifest, compared as it is."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from jobs.execution import Execution, Gpu, StoreAddress, StoreSecret
from jobs.manifest import environment_of
from jobs.names import job_name
from jobs.recipe import Recipe, StageSettings
from jobs.render import render, render_all
from jobs.run_spec import UNDATED, RunSpec

SPEC = RunSpec(
    session="robot",
    run_id="first",
    recipe=Recipe("sd15-tiny", StageSettings(3, 1e-5), StageSettings(4, 1e-4), resolution_px=64),
    base_model_source="models/sd15-tiny",
    checkpoint="robot-first-abc123",
    create_time=datetime(2026, 11, 23, tzinfo=UTC),
    owner="local/1234",
    request_id="again",
    request_digest="5678",
)
LABELS = {
    "app.kubernetes.io/name": "dreambooth",
    "app.kubernetes.io/component": "trainer",
    "app.kubernetes.io/part-of": "darkroom",
    "app.kubernetes.io/managed-by": "darkroom-trainer",
    "darkroom.dev/session": "robot",
    "darkroom.dev/run": "first",
}
RECIPE = (
    '{"base_model": "sd15-tiny", "base_model_source": "models/sd15-tiny", "batch_size": 1, "caption_dropout": 0.0, '
    '"checkpoint": "robot-first-abc123", "crop": "random", "ema_decay": 0.0, "flip": false, '
    '"gradient_accumulation_steps": 1, "gradient_checkpointing": false, "instance_prompt": "", "keep_resume_points": 2, '
    '"lora": null, "max_gradient_norm": 1.0, "min_snr_gamma": 0.0, "offset_noise": 0.0, "optimizer": "adamw", '
    '"precision": "fp32", "prior_preservation": null, "reference_order": false, "require_captions": false, '
    '"resolution_px": 64, "resume_point_every_minutes": 5, "resume_point_every_steps": 0, "sample_every_steps": 0, '
    '"sample_prompts": [], "seed": 0, "stages": "text_encoder_only_first", '
    '"text_encoder": {"learning_rate": 1e-05, "resolution_px": 0, "schedule": "linear", "steps": 3, "warmup_steps": 0}, '
    '"unet": {"learning_rate": 0.0001, "resolution_px": 0, "schedule": "linear", "steps": 4, "warmup_steps": 0}, '
    '"use_captions": false, "weight_decay": 0.01}'
)
CLUSTER = Execution(
    image="registry.test/darkroom-dreambooth:1",
    store=StoreAddress("http://store:9000"),
    store_secret=StoreSecret("store-keys"),
    gpu=Gpu(enabled=True),
)
MANIFEST = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {
        "name": "run-NAME",
        "labels": LABELS,
        "annotations": {
            "darkroom.dev/checkpoint": "robot-first-abc123",
            "darkroom.dev/create-time": "2026-11-23T00:00:00.000000Z",
            "darkroom.dev/owner": "local/1234",
            "darkroom.dev/request-id": "again",
            "darkroom.dev/request-digest": "5678",
        },
    },
    "spec": {
        "backoffLimit": 3,
        "completionMode": "NonIndexed",
        "completions": 1,
        "parallelism": 1,
        "podReplacementPolicy": "Failed",
        "activeDeadlineSeconds": 604800,
        "ttlSecondsAfterFinished": 86400,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "dreambooth",
                        "operator": "In",
                        "values": [64, 65, 66, 67, 68, 69, 78],
                    },
                },
            ]
        },
        "template": {
            "metadata": {"labels": LABELS},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 300,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {
                                    "matchExpressions": [
                                        {
                                            "key": "nvidia.com/gpu.sharing-strategy",
                                            "operator": "NotIn",
                                            "values": ["mps", "time-slicing"],
                                        }
                                    ]
                                }
                            ]
                        }
                    }
                },
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "runAsGroup": 10001,
                    "fsGroup": 10001,
                    "fsGroupChangePolicy": "OnRootMismatch",
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "dreambooth",
                        "image": "registry.test/darkroom-dreambooth:1",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python", "-m", "dreambooth"],
                        "env": [
                            {"name": "DARKROOM_RUN", "value": "sessions/robot/runs/first"},
                            {"name": "DARKROOM_RECIPE", "value": RECIPE},
                            {"name": "DARKROOM_SAVE_SECONDS", "value": "290"},
                            {"name": "DARKROOM_S3_ENDPOINT", "value": "http://store:9000"},
                            {"name": "DARKROOM_S3_BUCKET", "value": "darkroom"},
                            {"name": "DARKROOM_S3_REGION", "value": "us-east-1"},
                            {"name": "DARKROOM_S3_ACCESS_KEY_FILE", "value": "/etc/darkroom/store/access-key"},
                            {"name": "DARKROOM_S3_SECRET_KEY_FILE", "value": "/etc/darkroom/store/secret-key"},
                            {"name": "DARKROOM_DEVICE", "value": "cuda"},
                        ],
                        "resources": {
                            "requests": {"cpu": "2", "memory": "16Gi", "nvidia.com/gpu": "1"},
                            "limits": {"memory": "16Gi", "nvidia.com/gpu": "1"},
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                        "volumeMounts": [
                            {"name": "tmp", "mountPath": "/tmp"},
                            {"name": "shm", "mountPath": "/dev/shm"},
                            {"name": "store", "mountPath": "/etc/darkroom/store", "readOnly": True},
                        ],
                    }
                ],
                "volumes": [
                    {"name": "tmp", "emptyDir": {"sizeLimit": "32Gi"}},
                    {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
                    {
                        "name": "store",
                        "secret": {
                            "secretName": "store-keys",
                            "defaultMode": 0o440,
                            "items": [
                                {"key": "access-key", "path": "access-key"},
                                {"key": "secret-key", "path": "secret-key"},
                            ],
                        },
                    },
                ],
            },
        },
    },
}


def test_the_whole_manifest() -> None:
    rendered = render(SPEC, CLUSTER)
    assert rendered["metadata"]["name"] == job_name("sessions/robot/runs/first")
    rendered["metadata"]["name"] = "run-NAME"
    assert rendered == MANIFEST


def test_without_gpu_none_is_asked_for() -> None:
    job = render(SPEC, replace(CLUSTER, gpu=Gpu(False, 4, "amd.com/gpu", "nvidia", 1, ("A100",))))
    assert not re.search(
        "gpu|nvidia|amd|affinity|toleration|runtimeClass|resourceClaim|PROCESSES|DEVICE", json.dumps(job)
    )


@pytest.mark.parametrize(("grace_seconds", "expected"), [(1, "1"), (3, "1.5"), (20, "10"), (30, "20"), (3600, "3590")])
def test_the_program_saves_within_its_grace_period(grace_seconds: int, expected: str) -> None:
    assert environment_of(render(SPEC, Execution(grace_seconds=grace_seconds)))["DARKROOM_SAVE_SECONDS"] == expected


@pytest.mark.parametrize(("gpus", "expected"), [(0, None), (1, None), (4, "4")])
def test_a_process_for_each_gpu(gpus: int, expected: str | None) -> None:
    assert environment_of(render(SPEC, Execution(gpu=Gpu(gpus > 0, gpus)))).get("DARKROOM_PROCESSES") == expected


@pytest.mark.parametrize(
    ("device", "gpu", "expected"),
    [
        ("auto", Gpu(), None),
        ("auto", Gpu(True), "cuda"),
        ("auto", Gpu(True, resource_name="amd.com/gpu"), "cuda"),
        ("auto", Gpu(True, resource_claim_template_name="one-gpu"), "cuda"),
        ("cpu", Gpu(True), "cpu"),
        ("cpu", Gpu(), "cpu"),
        ("cuda", Gpu(), "cuda"),
    ],
)
def test_a_pod_with_a_gpu_computes_on_it_unless_told_otherwise(device: str, gpu: Gpu, expected: str | None) -> None:
    assert environment_of(render(SPEC, Execution(gpu=gpu, device=device))).get("DARKROOM_DEVICE") == expected


def test_names_are_short_and_differ() -> None:
    longest = job_name(f"sessions/{'s' * 63}/runs/{'r' * 40}")
    assert len(longest) <= 50
    assert job_name("sessions/a-b/runs/c") != job_name("sessions/a/runs/b-c")


def pod(execution: Execution) -> dict[str, Any]:
    found: dict[str, Any] = render(SPEC, execution)["spec"]["template"]["spec"]
    return found


def required(execution: Execution) -> list[list[tuple[str, str, list[str]]]]:
    """The alternatives of a pod's required node affinity, each a list of (key, operator, values)."""
    on_nodes = pod(execution)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return [
        [(each["key"], each["operator"], each.get("values", [])) for each in term["matchExpressions"]]
        for term in on_nodes["nodeSelectorTerms"]
    ]


ALONE = ("nvidia.com/gpu.sharing-strategy", "NotIn", ["mps", "time-slicing"])


def test_a_least_memory_and_products_choose_the_nodes() -> None:
    gpu = Gpu(True, min_memory_mib=40000, products=("NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3"))
    assert required(Execution(gpu=gpu)) == [
        [
            ("nvidia.com/gpu.memory", "Gt", ["39999"]),
            ("nvidia.com/gpu.product", "In", ["NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3"]),
            ALONE,
        ]
    ]


def test_requirements_join_each_alternative_of_the_given_affinity() -> None:
    zones = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in "ab"]
    fields = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}
    given = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [],
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [*zones, fields]},
        },
        "podAffinity": {},
    }
    before = json.dumps(given)
    execution = Execution(gpu=Gpu(True), affinity=given)
    assert required(execution) == [[("zone", "In", ["a"]), ALONE], [("zone", "In", ["b"]), ALONE], [ALONE]]
    affinity = pod(execution)["affinity"]
    assert affinity["podAffinity"] == {}
    assert affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] == []
    assert json.dumps(given) == before


@pytest.mark.parametrize(
    ("resource", "taint"),
    [
        ("nvidia.com/gpu", "nvidia.com/gpu"),
        ("nvidia.com/gpu.shared", "nvidia.com/gpu"),
        ("nvidia.com/mig-3g.20gb", "nvidia.com/gpu"),
        ("amd.com/gpu", "amd.com/gpu"),
    ],
)
def test_each_resource_is_asked_for_and_its_taint_tolerated(resource: str, taint: str) -> None:
    mine = {"key": "spot", "operator": "Exists"}
    found = pod(Execution(gpu=Gpu(True, 1, resource, allow_shared=True), tolerations=(mine,)))
    for side in ("requests", "limits"):
        assert found["containers"][0]["resources"][side][resource] == "1"
    assert found["tolerations"] == [{"key": taint, "operator": "Exists", "effect": "NoSchedule"}, mine]
    assert "affinity" not in found


def test_the_toleration_is_there_once() -> None:
    mine = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert pod(Execution(gpu=Gpu(True), tolerations=(mine,)))["tolerations"] == [mine]


def test_a_spread_counts_the_pods_of_all_runs_or_those_it_names() -> None:
    zone = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    named = zone | {"labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}
    job = render(SPEC, replace(CLUSTER, topology_spread_constraints=(zone, named)))
    first, second = job["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert first["labelSelector"]["matchLabels"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert first["labelSelector"]["matchLabels"] == {
        "app.kubernetes.io/name": "dreambooth",
        "app.kubernetes.io/part-of": "darkroom",
    }
    assert second == named


def test_a_claim_takes_the_place_of_the_resource() -> None:
    found = pod(Execution(gpu=Gpu(True, resource_claim_template_name="big-gpu")))
    assert found["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "big-gpu"}]
    assert found["containers"][0]["resources"]["claims"] == [{"name": "gpu"}]
    assert "nvidia.com/gpu" not in found["containers"][0]["resources"]["limits"]
    assert "affinity" not in found


def test_ids_that_the_platform_assigns_are_left_out() -> None:
    own = replace(CLUSTER, run_as_user=20001, run_as_group=20002, fs_group=20003)
    context = pod(own)["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (20001, 20002, 20003)
    assigned = replace(CLUSTER, run_as_user=None, run_as_group=None, fs_group=None)
    assert pod(assigned)["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_a_user_namespace_of_its_own_is_asked_for_only_where_it_is_wanted() -> None:
    assert "hostUsers" not in pod(CLUSTER)
    assert pod(replace(CLUSTER, host_users=False))["hostUsers"] is False


def test_several_pods_meet_at_the_first() -> None:
    service, job = render_all(SPEC, replace(CLUSTER, nodes=2, namespace="training"))
    name = job_name(SPEC.name)
    assert service["metadata"] == {"name": name, "namespace": "training", "labels": LABELS}
    assert service["spec"] == {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"darkroom.dev/session": "robot", "darkroom.dev/run": "first"},
        "ports": [{"name": "meeting", "port": 29500}],
    }
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 2, 2)
    assert job["spec"]["template"]["spec"]["subdomain"] == name
    environment = environment_of(job)
    assert environment["MASTER_ADDR"] == f"{name}-0.{name}"
    assert (environment["MASTER_PORT"], environment["DARKROOM_NODES"]) == ("29500", "2")
    last = job["spec"]["podFailurePolicy"]["rules"][-1]
    assert (last["action"], last["onExitCodes"]["values"]) == ("Ignore", [76])


def test_one_pod_needs_no_service() -> None:
    assert render_all(SPEC, CLUSTER) == [render(SPEC, CLUSTER)]


def test_a_queue_is_a_label_of_the_job_alone() -> None:
    job = render(SPEC, replace(CLUSTER, queue_name="gpus", queue_priority_class="low"))
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "low"
    assert "suspend" not in job["spec"]
    assert job["spec"]["template"]["metadata"]["labels"] == LABELS


def test_labels_and_annotations_reach_the_pods_and_cannot_take_the_place_of_ours() -> None:
    execution = replace(CLUSTER, labels={"team": "x", "darkroom.dev/run": "y"}, annotations={"mesh": "off"})
    job = render(SPEC, execution)
    for about in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert about["labels"] == {"team": "x", **LABELS}
        assert about["annotations"]["mesh"] == "off"


def test_a_run_without_a_time_says_none() -> None:
    assert "darkroom.dev/create-time" not in str(render(replace(SPEC, create_time=UNDATED), CLUSTER))
