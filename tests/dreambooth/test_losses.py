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
        reader.add(facts(step), torch.tensor(step / 2), torch.zeros(2))
    reader.finish()
    assert found == [(step, step / 2) for step in range(1, 101)]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_step_image_and_advice(loss: float) -> None:
    with pytest.raises(Diverged, match=r"unet step 7 is (nan|inf), with sks_toy \(1\)\.png; try a lower"):
        LossReader(lambda step, number: None).add(facts(7), torch.tensor(loss), torch.tensor([loss, 0.5]))
