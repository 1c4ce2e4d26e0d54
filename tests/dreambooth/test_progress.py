import pytest
from dreambooth.progress import Progress, StepFacts


class Clock:
    """Seconds that only pass when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def facts(step: int, stage: str = "unet") -> StepFacts:
    return StepFacts(stage, step, 100, {stage: 1e-6}, ("a.png",), 0.5, 0.125)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_rate_and_time_left_count_both_stages(clock: Clock) -> None:
    progress = Progress(2, {"text_encoder": 40, "unet": 0}, clock)
    progress.enter("text_encoder")
    for step in range(1, 11):
        clock.seconds += 0.5
        record = progress.record(facts(step, "text_encoder"), 1.0)
    assert record["images_per_second"] == pytest.approx(4.0)
    assert record["eta_seconds"] == pytest.approx((90 + 40) * 0.5)


def test_rate_is_that_of_the_last_steps_and_ignores_sampling(clock: Clock) -> None:
    progress = Progress(1, {"unet": 0}, clock)
    progress.enter("unet")
    for step in range(1, 61):
        clock.seconds += 10 if step <= 5 else 0.25
        record = progress.record(facts(step), 1.0)
        if step == 55:
            resume = progress.pause()
            clock.seconds += 1000
            resume()
    assert record["images_per_second"] == pytest.approx(4.0)


def test_smoothed_loss_starts_at_the_loss_and_follows_with_its_weight(clock: Clock) -> None:
    progress = Progress(1, {"text_encoder": 5, "unet": 0}, clock)
    for stage in ("text_encoder", "unet"):
        progress.enter(stage)
        clock.seconds += 1
        assert progress.record(facts(1, stage), 2.0)["smoothed_loss"] == 2.0
        clock.seconds += 1
        assert progress.record(facts(2, stage), 1.0)["smoothed_loss"] == pytest.approx(0.98 * 2.0 + 0.02 * 1.0)
    assert progress.first_loss == {"text_encoder": 2.0, "unet": 2.0}
    assert progress.last_loss == {"text_encoder": 1.0, "unet": 1.0}


def test_rates_times_and_utilization_are_recorded(clock: Clock) -> None:
    progress = Progress(1, {"text_encoder": 0, "unet": 0}, clock, {"unet": 0.2})
    progress.enter("unet")
    clock.seconds += 0.5
    joint = StepFacts("unet", 1, 10, {"unet": 1e-5, "text_encoder": 1e-6}, (), 0.5, 0.125)
    record = progress.record(joint, 1.0)
    assert (record["learning_rate"], record["text_encoder_learning_rate"]) == (1e-5, 1e-6)
    assert (record["step_seconds"], record["data_wait_seconds"]) == (0.5, 0.125)
    assert record["model_flops_utilization"] == pytest.approx(0.4)
    clock.seconds += 0.5
    alone = progress.record(facts(2, "text_encoder"), 1.0)
    assert (alone["learning_rate"], alone["text_encoder_learning_rate"]) == (1e-6, 1e-6)


def test_a_restored_progress_goes_on_where_it_was(clock: Clock) -> None:
    first, second, whole = (Progress(1, {"unet": 0}, clock) for _ in range(3))
    for progress in (first, second, whole):
        progress.enter("unet")
    before = [whole.record(facts(step), 1 / step)["smoothed_loss"] for step in range(1, 7)]
    found = [first.record(facts(step), 1 / step)["smoothed_loss"] for step in range(1, 4)]
    second.restore(first.state())
    found += [second.record(facts(step), 1 / step)["smoothed_loss"] for step in range(4, 7)]
    assert found == before
    assert second.first_loss == whole.first_loss
