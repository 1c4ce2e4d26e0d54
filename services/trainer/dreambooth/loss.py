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


def of_batch(
    prediction: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor | None, prior_weight: float | None
) -> torch.Tensor:
    """The loss of a batch, a scalar in fp32.

    weights: of each picture, shape (batch,), or None for all alike. prior_weight: with prior preservation the second half
    of the batch are class images, whose mean loss is added with this weight (Ruiz et al. 2022, arXiv 2208.12242, eq. 2).
    """
    if prior_weight is None:
        return _mean(prediction, wanted, weights)
    half = len(prediction) // 2
    first, second = (None, None) if weights is None else (weights[:half], weights[half:])
    of_class = _mean(prediction[half:], wanted[half:], second)
    return _mean(prediction[:half], wanted[:half], first) + prior_weight * of_class


def of_each(prediction: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each picture, shape (batch,)."""
    squared = functional.mse_loss(prediction.float(), wanted.float(), reduction="none")
    return squared.mean(dim=list(range(1, squared.dim())))


def min_snr_weights(
    prediction_type: str, alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, gamma: float
) -> torch.Tensor:
    """min(SNR, gamma) / SNR, and for velocities / (SNR + 1); shape (batch,) (Hang et al. 2023, arXiv 2303.09556)."""
    alpha = (alphas_cumprod**0.5)[timesteps].float()
    sigma = ((1 - alphas_cumprod) ** 0.5)[timesteps].float()
    snr = (alpha / sigma) ** 2
    return snr.clamp(max=gamma) / (snr + 1 if prediction_type == "v_prediction" else snr)


def _mean(prediction: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    if weights is None:
        return functional.mse_loss(prediction.float(), wanted.float(), reduction="mean")
    return (of_each(prediction, wanted) * weights).mean()


def _weights(alphas_cumprod: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return chosen**0.5, (1 - chosen) ** 0.5
