"""What the UNet sees in a micro-step, made from its draws.

Shapes: N pictures (instance views, then class views), C latent channels, H x W latent pixels, T tokens, D text channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dreambooth import loss, text
from dreambooth.batches import Images
from dreambooth.latents import Latents
from dreambooth.parts import Parts
from dreambooth.recipe import Recipe
from dreambooth.sources import Drawn
from dreambooth.stages import Stage


@dataclass(frozen=True)
class Example:
    """noisy, wanted: (N, C, H, W). timesteps: (N,). weights: of the loss, (N,) or None. prompts: N."""

    noisy: torch.Tensor
    wanted: torch.Tensor
    timesteps: torch.Tensor
    weights: torch.Tensor | None
    prompts: tuple[str, ...]


class Examples:
    """Examples of one stage."""

    def __init__(self, parts: Parts, recipe: Recipe, images: Images, latents: Latents) -> None:
        self._parts = parts
        self._recipe = recipe
        self._images = images
        self._latents = latents

    def make(self, drawn: Drawn) -> Example:
        """The same for the same draws, whatever happened before."""
        parts, shown = self._parts, [self._images.every[view.index] for view in drawn.views]
        latents = self._latents.sample(drawn.views, _sent(drawn.latent, parts.device))
        noise = _sent(drawn.noise, parts.device)
        timesteps = _sent(torch.tensor(drawn.timesteps), parts.device)
        schedule = parts.alphas_cumprod
        gamma = self._recipe.min_snr_gamma
        return Example(
            noisy=loss.noisy(latents, noise, schedule, timesteps),
            wanted=loss.target(parts.prediction_type, latents, noise, schedule, timesteps),
            timesteps=timesteps,
            weights=loss.min_snr_weights(parts.prediction_type, schedule, timesteps, gamma) if gamma else None,
            prompts=tuple("" if is_dropped else i.prompt for i, is_dropped in zip(shown, drawn.dropped, strict=True)),
        )


class Contexts:
    """Text states (N, T, D) for the prompts of a stage: cached where the text encoder is frozen."""

    def __init__(self, parts: Parts, stage: Stage, *, cached: bool) -> None:
        self._states = (
            text.FrozenStates(parts) if cached and not stage.trains_text_encoder else text.TrainedStates(parts)
        )

    def of(self, prompts: Sequence[str]) -> torch.Tensor:
        """With gradients where the text encoder learns."""
        return self._states.of(prompts)


def _sent(drawn: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device. A GPU fetches it from page-locked memory by itself: the host does not wait for the steps before."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)
