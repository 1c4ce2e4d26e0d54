import pytest
import torch
from diffusers import DDPMScheduler
from dreambooth import loss


@pytest.fixture
def schedule() -> DDPMScheduler:
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    timesteps = torch.tensor([0, 1, 500, 998, 999])
    return torch.randn(5, 4, 8, 8, generator=made), torch.randn(5, 4, 8, 8, generator=made), timesteps


def test_noisy_latents_equal_those_of_diffusers(schedule: DDPMScheduler, batch: tuple[torch.Tensor, ...]) -> None:
    latents, noise, timesteps = batch
    ours = loss.noisy(latents, noise, schedule.alphas_cumprod, timesteps)
    assert torch.equal(ours, schedule.add_noise(latents, noise, timesteps))


def test_velocity_equals_that_of_diffusers(schedule: DDPMScheduler, batch: tuple[torch.Tensor, ...]) -> None:
    latents, noise, timesteps = batch
    ours = loss.target("v_prediction", latents, noise, schedule.alphas_cumprod, timesteps)
    assert torch.equal(ours, schedule.get_velocity(latents, noise, timesteps))


def test_epsilon_target_is_the_noise(schedule: DDPMScheduler, batch: tuple[torch.Tensor, ...]) -> None:
    latents, noise, timesteps = batch
    assert loss.target("epsilon", latents, noise, schedule.alphas_cumprod, timesteps) is noise


def test_unknown_target_is_refused(schedule: DDPMScheduler, batch: tuple[torch.Tensor, ...]) -> None:
    latents, noise, timesteps = batch
    with pytest.raises(ValueError, match="'sample'"):
        loss.target("sample", latents, noise, schedule.alphas_cumprod, timesteps)


def test_error_of_half_precision_is_computed_in_fp32() -> None:
    prediction = torch.full((1, 4, 8, 8), 300.0, dtype=torch.bfloat16)
    result = loss.mean_squared_error(prediction, torch.zeros(1, 4, 8, 8))
    assert result.dtype == torch.float32
    assert result.item() == 90_000.0
