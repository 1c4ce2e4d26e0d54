"""A small picture of unfinished latents, without running the VAE: a linear map from latent channels to colours.

Made by `pipelines.py` for each model, used by the progress routes in their own thread. The map is fitted to the model's own
VAE (least squares over flat colours), so it suits models whose latents are not those of SD1.5.
"""

import itertools
import threading
from typing import Any, Final

import torch
from PIL import Image

_LEVELS: Final = (0.0, 0.5, 1.0)
_PATCH_PX: Final = 64


class Preview:
    """Fits itself at the first use: 27 patches of 64 x 64 px through the VAE's encoder."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._lock = threading.Lock()
        self._map: torch.Tensor | None = None

    def draw(self, latents: torch.Tensor, scale: int) -> Image.Image:
        """latents (C, h, w) as the UNet sees them, noise removed -> RGB of scale*w x scale*h px."""
        with self._lock, torch.inference_mode():
            if self._map is None:
                self._map = _fit(self._vae)
            channels, height, width = latents.shape
            flat = latents.detach().float().cpu().reshape(channels, -1).T
            colours = torch.cat([flat, torch.ones(len(flat), 1)], dim=1) @ self._map
        pixels = (colours.clamp(0, 1) * 255).round().to(torch.uint8).reshape(height, width, 3).numpy()
        return Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.BILINEAR)


def _fit(vae: Any) -> torch.Tensor:
    """The map (C + 1, 3) from latent channels and a constant to colours in [0, 1]."""
    colours = torch.tensor(list(itertools.product(_LEVELS, repeat=3)))
    patches = colours[:, :, None, None].expand(-1, -1, _PATCH_PX, _PATCH_PX) * 2 - 1
    latents = vae.encode(patches.to(vae.device)).latent_dist.mode().float().cpu() * vae.config.scaling_factor
    means = latents.mean(dim=(2, 3))
    inputs = torch.cat([means, torch.ones(len(means), 1)], dim=1)
    solution: torch.Tensor = torch.linalg.lstsq(inputs, colours).solution
    return solution
