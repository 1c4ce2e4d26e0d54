import pytest
import torch
from dreambooth.errors import Diverged
from dreambooth.losses import LossReader
from dreambooth.progress import StepFacts


def facts(step: int) -> StepFacts:
    return StepFacts("unet", step, 100, {"unet": 2e-6}, ("sks_toy (1).png", "sks_toy (2).png"))


def test_every_loss_is_reported_in_order() -> None:
    found: list[tuple[int, float]] = []
    reader = LossReader(lambda step, loss: found.append((step.step, loss)))
    for step in range(1, 101):
        reader.add(facts(step), torch.tensor(step / 2), torch.zeros(2), torch.tensor(step / 4))
    reader.finish()
    assert found == [(step, step / 2) for step in range(1, 101)]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_step_image_and_advice(loss: float) -> None:
    with pytest.raises(Diverged, match=r"unet step 7 is (nan|inf), with sks_toy \(1\)\.png; try a lower"):
        LossReader(lambda step, number: None).add(facts(7), torch.tensor(loss), torch.tensor([loss, 0.5]))


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_stop_with_step_images_and_advice(norm: float) -> None:
    found: list[float] = []
    reader = LossReader(lambda step, number: found.append(number))
    with pytest.raises(
        Diverged,
        match=r"gradients of unet step 7 is (nan|inf), with sks_toy \(1\)\.png, sks_toy \(2\)\.png; try a lower",
    ):
        reader.add(facts(7), torch.tensor(0.5), torch.tensor([0.5, 0.5]), torch.tensor(norm))
    assert found == []
