"""The training objective of latent diffusion, in fp32 whatever the precision of the forward pass.

Shapes: latents, noise and prediction (batch, channels, height, width); timesteps (batch,).
"""

import torch
from torch.nn import functional


def noisy(
    latents: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """sqrt(a) x + sqrt(1 - a) e, the closed form of the forward process (Ho et al. 2020, arXiv 2006.11239, eq. 4)."""
    signal, spread = _weights(alphas_cumprod, timesteps)
    return signal * latents + spread * noise


def target(
    prediction_type: str,
    latents: torch.Tensor,
    noise: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """What the UNet is to predict: the noise ("epsilon"), or the velocity sqrt(a) e - sqrt(1 - a) x ("v_prediction",
    Salimans and Ho 2022, arXiv 2202.00512, appendix D)."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        signal, spread = _weights(alphas_cumprod, timesteps)
        return signal * noise - spread * latents
    raise ValueError(f"prediction type {prediction_type!r}: expected 'epsilon' or 'v_prediction'")


def mean_squared_error(prediction: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """A scalar, in fp32."""
    return functional.mse_loss(prediction.float(), wanted.float(), reduction="mean")


def _weights(alphas_cumprod: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return chosen**0.5, (1 - chosen) ** 0.5
