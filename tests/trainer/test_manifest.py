"""The one renderer: the whole manifest, compared as it is."""

from datetime import UTC, datetime

import pytest
from artifacts.errors import ManifestInvalid
from artifacts.records import encode
from trainer.manifest import Execution, RunSpec, environment_of, job_name, parse, render
from trainer.recipe import Recipe, StageSettings

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
                            {"name": "DARKROOM_SAVE_SECONDS", "value": "50"},
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


@pytest.mark.parametrize(("grace_seconds", "expected"), [(1, "1"), (3, "1.5"), (20, "10"), (30, "20"), (3600, "3590")])
def test_the_program_saves_within_its_grace_period(grace_seconds: int, expected: str) -> None:
    assert environment_of(render(SPEC, Execution(grace_seconds=grace_seconds)))["DARKROOM_SAVE_SECONDS"] == expected


@pytest.mark.parametrize(("gpus", "expected"), [(0, None), (1, None), (4, "4")])
def test_a_process_for_each_gpu(gpus: int, expected: str | None) -> None:
    assert environment_of(render(SPEC, Execution(gpus=gpus))).get("DARKROOM_PROCESSES") == expected


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
