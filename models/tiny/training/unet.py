"""Stage 4: the UNet, trained on cached latents and caption states to predict the noise."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from .ranks import average_gradients, cosine, start

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class UnetSettings:
    steps: int = 1600
    batch_per_process: int = 32
    rate: float = 7e-4
    average_decay: float = 0.998
    empty_share: float = 0.1  # captions replaced by "", for classifier-free guidance
    snr_gamma: float = 5.0
    seed: int = 4


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
        self.empty = torch.from_numpy(np.load(folder / "caption-empty.npy")).float()

    def batch(self, rng: np.random.Generator, count: int, empty_share: float) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Sampled latents (count, 4, 8, 8), caption states (count, tokens, 768) and the indices drawn."""
        chosen = np.sort(rng.integers(len(self.mean), size=count))
        captions = self.caption_of[chosen, rng.integers(self.caption_of.shape[1], size=count)]
        states = torch.from_numpy(self.states[captions]).float()
        states[torch.from_numpy(rng.random(count) < empty_share)] = self.empty
        noise = torch.from_numpy(rng.standard_normal(self.mean[chosen].shape, dtype=np.float32))
        latents = torch.from_numpy(self.mean[chosen]) + torch.from_numpy(self.deviation[chosen]) * noise
        return latents, states, chosen


def train(rank: int, processes: int, folder: Path, settings: UnetSettings) -> None:
    """Writes `unet.pt` (averaged weights) every 100 steps; `unet-state.pt` lets it resume."""
    start(rank, processes, str(folder / "unet.group"))
    unet, cache = build(), Cache(folder)
    alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod
    optimizer = torch.optim.AdamW(unet.parameters(), settings.rate, (0.9, 0.99), weight_decay=0.01)
    average = {name: p.detach().clone() for name, p in unet.state_dict().items()}
    first = 0
    state_file = folder / "unet-state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        unet.load_state_dict(state["unet"])
        optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], state["step"]
    began, losses = time.monotonic(), []
    for step in range(first, settings.steps):
        optimizer.param_groups[0]["lr"] = settings.rate * cosine(step, settings.steps)
        rng = np.random.default_rng([settings.seed, step, rank])
        latents, states, _ = cache.batch(rng, settings.batch_per_process, settings.empty_share)
        noise = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
        steps = torch.from_numpy(rng.integers(1000, size=len(latents)))
        signal = alphas[steps][:, None, None, None]
        output = unet(signal.sqrt() * latents + (1 - signal).sqrt() * noise, steps, states).sample
        squared = (output - noise).square().mean(dim=(1, 2, 3))
        loss = (squared * min_snr_weight(steps, alphas, settings.snr_gamma)).mean()
        optimizer.zero_grad()
        loss.backward()
        average_gradients(unet.parameters(), processes)
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        decay = min(settings.average_decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.values()), list(unet.state_dict().values()), 1 - decay)
        losses.append(squared.mean().item())
        if rank == 0 and step % 20 == 19:
            print(f"unet {step + 1} loss {np.mean(losses[-20:]):.4f} {time.monotonic() - began:.0f}s", flush=True)
        if rank == 0 and (step % 100 == 99 or step == settings.steps - 1):
            saved = {"unet": unet.state_dict(), "average": average, "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(saved, state_file)
            torch.save(average, folder / "unet.pt")
