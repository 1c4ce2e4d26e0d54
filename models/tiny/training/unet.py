"""Stage 4: the UNet, trained on cached latents and caption states to predict the noise."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from . import loop
from .loop import Rates

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "steps_offset": 1,
}


SNR_GAMMA = 5.0
SCENE_SHARE = 0.35  # of a batch; the rest are toys, which have more parts
UNET_RATES = Rates(steps=2900, muon=0.01, adam=1e-3, average_decay=0.99)
Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray], torch.Tensor]


@dataclass(frozen=True)
class UnetSettings:
    rates: Rates = UNET_RATES
    batch_per_process: int = 64
    empty_share: float = 0.1  # captions replaced by "", for classifier-free guidance
    seed: int = 4
    device: str = "cpu"


def build() -> UNet2DConditionModel:
    """Every block type, level and layer count of SD1.5, narrow; 8 heads and 768-wide cross-attention."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        block_out_channels=(32, 64, 96, 128),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
        norm_num_groups=8,
    )


def min_snr_weight(steps: torch.Tensor, alphas: torch.Tensor, gamma: float) -> torch.Tensor:
    """min(SNR, gamma) / SNR, the weight of Hang et al. 2023 for noise prediction."""
    signal = alphas[steps]
    ratio = signal / (1 - signal)
    return torch.clamp(ratio, max=gamma) / ratio


class Cache:
    """Latents (mean, deviation) and caption states on disk, shared between processes by memory mapping."""

    def __init__(self, folder: Path) -> None:
        self.mean = np.load(folder / "latent-mean.npy", mmap_mode="r")
        self.deviation = np.load(folder / "latent-deviation.npy", mmap_mode="r")
        self.caption_of = np.load(folder / "caption-of.npy")
        self.states = np.load(folder / "caption-states.npy", mmap_mode="r")
        is_scene = np.load(folder / "is-scene.npy")
        self.groups = np.flatnonzero(is_scene), np.flatnonzero(~is_scene)
        self.empty = torch.from_numpy(np.load(folder / "caption-empty.npy")).float()

    def batch(
        self, rng: np.random.Generator, count: int, empty_share: float
    ) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Sampled latents (count, 4, 8, 8), caption states (count, tokens, 768) and the indices drawn."""
        share = np.where(rng.random(count) < SCENE_SHARE, 0, 1)
        chosen = np.sort([rng.choice(self.groups[group]) for group in share])
        captions = self.caption_of[chosen, rng.integers(self.caption_of.shape[1], size=count)]
        states = torch.from_numpy(self.states[captions]).float()
        states[torch.from_numpy(rng.random(count) < empty_share)] = self.empty
        noise = torch.from_numpy(rng.standard_normal(self.mean[chosen].shape, dtype=np.float32))
        latents = torch.from_numpy(self.mean[chosen]) + torch.from_numpy(self.deviation[chosen]) * noise
        return latents, states, chosen


class Noise:
    """The diffusion loss on batches of the cache; every draw is a function of seed, step and rank."""

    def __init__(self, cache: Cache, batch: int, empty_share: float, seed: int, rank: int, device: str) -> None:
        self._cache, self._batch, self._empty_share, self._device = cache, batch, empty_share, device
        self._seed, self._rank = seed, rank
        self._alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod
        self._recent: deque[float] = deque(maxlen=20)

    def loss(self, step: int, predict: Predict) -> tuple[torch.Tensor, dict[str, float]]:
        """`predict(noisy, steps, states, chosen)` gives the noise; the report holds its plain squared error."""
        rng = np.random.default_rng([self._seed, step, self._rank])
        clean, states, chosen = self._cache.batch(rng, self._batch, self._empty_share)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        steps = torch.from_numpy(rng.integers(1000, size=len(clean)))
        signal = self._alphas[steps][:, None, None, None]
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        weight = min_snr_weight(steps, self._alphas, SNR_GAMMA).to(self._device)
        noisy, steps, states, noise = (tensor.to(self._device) for tensor in (noisy, steps, states, noise))
        squared = (predict(noisy, steps, states, chosen) - noise).square().mean(dim=(1, 2, 3))
        self._recent.append(squared.mean().item())
        return (squared * weight).mean(), {"loss": float(np.mean(self._recent))}


def train(rank: int, processes: int, folder: Path, settings: UnetSettings) -> None:
    """Writes `unet.pt`, the running average of the weights."""
    torch.set_num_threads(1)
    unet = build().to(settings.device, memory_format=torch.channels_last)
    cache = Cache(folder)
    noise = Noise(cache, settings.batch_per_process, settings.empty_share, settings.seed, rank, settings.device)

    def predict(noisy: torch.Tensor, steps: torch.Tensor, states: torch.Tensor, _: np.ndarray) -> torch.Tensor:
        return unet(noisy, steps, states).sample

    loop.run(unet, lambda step: noise.loss(step, predict), settings.rates, "unet", folder, rank, processes)
