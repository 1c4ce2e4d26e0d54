"""The one renderer: the whole manifest, compared as it is."""

from datetime import UTC, datetime

import pytest
from artifacts.errors import ManifestInvalid
from artifacts.records import encode
from trainer.manifest import Execution, RunSpec, job_name, parse, render
from trainer.recipe import Recipe, StageSettings

SPEC = RunSpec(
    session="robot",
    run_id="first",
    recipe=Recipe("sd15-tiny", StageSettings(3, 1e-5), StageSettings(4, 1e-4), 64),
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
    '{"base_model": "sd15-tiny", "base_model_source": "models/sd15-tiny", "batch_size": 1, '
    '"checkpoint": "robot-first-abc123", "flip": false, "instance_prompt": "", "precision": "fp32", '
    '"require_captions": false, "resolution_px": 64, "sample_every_steps": 0, "sample_prompts": [], "seed": 0, '
    '"text_encoder": {"learning_rate": 1e-05, "steps": 3}, "unet": {"learning_rate": 0.0001, "steps": 4}, '
    '"use_captions": false}'
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
                "terminationGracePeriodSeconds": 60,
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "runAsGroup": 10001,
                    "fsGroup": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "dreambooth",
                        "image": "darkroom-trainer:0.1.0",
                        "command": ["python", "-m", "dreambooth"],
                        "env": [
                            {"name": "DARKROOM_RUN", "value": "sessions/robot/runs/first"},
                            {"name": "DARKROOM_RECIPE", "value": RECIPE},
                        ],
                        "envFrom": [{"secretRef": {"name": "darkroom-s3"}}],
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
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    }
                ],
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "32Gi"}}],
            },
        },
    },
}


def test_the_whole_manifest() -> None:
    rendered = render(SPEC, Execution(gpus=1))
    assert rendered["metadata"]["name"] == job_name("sessions/robot/runs/first")
    rendered["metadata"]["name"] = "run-NAME"
    assert rendered == MANIFEST


def test_without_gpu_none_is_asked_for() -> None:
    assert "nvidia.com/gpu" not in str(render(SPEC, Execution()))


def test_the_run_can_be_read_back() -> None:
    job = render(SPEC, Execution())
    assert parse(encode(job), "key") == (SPEC, job)


def test_names_are_short_and_differ() -> None:
    longest = job_name(f"sessions/{'s' * 63}/runs/{'r' * 40}")
    assert len(longest) <= 50
    assert job_name("sessions/a-b/runs/c") != job_name("sessions/a/runs/b-c")


@pytest.mark.parametrize("data", [b"no JSON", b"{}", b'{"metadata": {"labels": {}, "annotations": {}}}'])
def test_damage_is_named(data: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="the-key"):
        parse(data, "the-key")
