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
    result = loss.of_batch(prediction, torch.zeros(1, 4, 8, 8), None, None)
    assert result.dtype == torch.float32
    assert result.item() == 90_000.0


def test_the_prior_loss_is_added_with_its_weight() -> None:
    prediction = torch.cat([torch.full((2, 4, 8, 8), 1.0), torch.full((2, 4, 8, 8), 3.0)])
    wanted = torch.zeros(4, 4, 8, 8)
    assert loss.of_batch(prediction, wanted, None, 0.5).item() == pytest.approx(1 + 0.5 * 9)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.0])  # of each picture by itself, class pictures too
    assert loss.of_batch(prediction, wanted, weights, 0.5).item() == pytest.approx(0.5 + 0.5 * 9)
    assert loss.of_each(prediction, wanted).tolist() == pytest.approx([1, 1, 9, 9])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_follow_the_paper(schedule: DDPMScheduler, kind: str) -> None:
    timesteps = torch.arange(1000)
    weights = loss.min_snr_weights(kind, schedule.alphas_cumprod, timesteps, 5.0).double()
    signal = schedule.alphas_cumprod.double()
    snr = signal / (1 - signal)
    wanted = torch.minimum(snr, torch.full_like(snr, 5.0)) / (snr if kind == "epsilon" else snr + 1)
    assert torch.allclose(weights, wanted, rtol=1e-4)
    assert (weights <= 1 + 1e-6).all()
