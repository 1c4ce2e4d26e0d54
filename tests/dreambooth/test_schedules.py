"""Rates are those of diffusers' optimization module, whose formulas are named as the source."""

import pytest
import torch
from diffusers.optimization import get_scheduler
from dreambooth.recipe import SCHEDULES, StageSettings
from dreambooth.schedules import POLYNOMIAL_POWER, rate


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_diffusers(name: str, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
    kind = "constant_with_warmup" if name == "constant" else name
    theirs = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=20, power=POLYNOMIAL_POWER)
    wanted = []
    for _ in range(20):
        wanted.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    settings = StageSettings(20, 2e-4, name, warmup)
    assert [rate(settings, step, 20) for step in range(1, 21)] == pytest.approx(wanted, rel=1e-12)


def test_a_polynomial_that_ends_above_its_peak_stays() -> None:
    settings = StageSettings(4, 1e-8, "polynomial")
    assert {rate(settings, step, 4) for step in range(1, 5)} == {1e-8}
