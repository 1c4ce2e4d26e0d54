"""What Prometheus is told of training."""

from dataclasses import replace
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from trainer.events import ProgressRecord, ResumePointRecord
from trainer.metrics import TrainingMetrics

TIME = datetime(2026, 11, 23, tzinfo=UTC)
STEP = ProgressRecord(
    stage="unet",
    step=1,
    num_steps=9,
    loss=0.5,
    smoothed_loss=0.75,
    learning_rate=2e-6,
    images_per_second=4.0,
    eta_seconds=60.0,
    time=TIME,
    text_encoder_learning_rate=1e-6,
    step_seconds=0.15,
    data_wait_seconds=0.05,
    model_flops_utilization=0.25,
)
POINT = ResumePointRecord("unet", 1, "1-1-0000001/", 4, 0.5, TIME)


def test_steps_are_counted_and_the_newest_sets_the_gauges() -> None:
    registry = CollectorRegistry()
    metrics = TrainingMetrics(registry)
    metrics.records("robot", [replace(STEP, stage="text_encoder"), STEP, replace(STEP, step=2, step_seconds=0.35)])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"darkroom_training_{name}", labels)

    assert value("steps_total", stage="unet") == 2
    assert value("steps_total", stage="text_encoder") == 1
    assert value("step_seconds_sum", stage="unet") == 0.5
    assert value("step_seconds_bucket", stage="unet", le="0.2") == 1
    assert value("step_seconds_bucket", stage="unet", le="0.5") == 2
    assert value("data_wait_seconds_total", stage="unet") == 0.1
    assert value("loss", session="robot") == 0.5
    assert value("smoothed_loss", session="robot") == 0.75
    assert value("learning_rate", session="robot") == 2e-6
    assert value("text_encoder_learning_rate", session="robot") == 1e-6
    assert value("model_flops_utilization", session="robot") == 0.25
    metrics.over("robot")
    assert value("model_flops_utilization", session="robot") is None


def test_resume_points_and_how_long_training_stood_still_for_them() -> None:
    registry = CollectorRegistry()
    TrainingMetrics(registry).records("robot", [POINT, replace(POINT, step=2)])
    assert registry.get_sample_value("darkroom_training_resume_points_total") == 2
    assert registry.get_sample_value("darkroom_training_save_stall_seconds_total") == 1.0


def test_records_of_older_programs_say_no_times() -> None:
    registry = CollectorRegistry()
    TrainingMetrics(registry).records("robot", [replace(STEP, step_seconds=0.0)])
    assert registry.get_sample_value("darkroom_training_steps_total", {"stage": "unet"}) == 1
    assert registry.get_sample_value("darkroom_training_step_seconds_count", {"stage": "unet"}) is None
