"""Stage 5: the canny ControlNet of the frozen UNet, trained on edge maps of the training pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from . import loop, unet
from .loop import Rates

CONTROLNET_RATES = Rates(steps=1300, muon=0.005, adam=2e-3, average_decay=0.95)


@dataclass(frozen=True)
class ControlNetSettings:
    rates: Rates = CONTROLNET_RATES
    batch_per_process: int = 24
    empty_share: float = 0.3  # without a caption the edges alone must say what to draw
    seed: int = 5
    device: str = "cpu"


def build(base: UNet2DConditionModel) -> ControlNetModel:
    """Encoder weights of the UNet, zero convolutions, and a narrow embedding of the 64 px edge map."""
    torch.manual_seed(0)
    return ControlNetModel.from_unet(base, conditioning_embedding_out_channels=(16, 32, 48, 64))


def unpacked(packed: np.ndarray) -> torch.Tensor:
    """Packed maps to the (n, 3, 64, 64) float of 0 and 1 that ControlNet takes."""
    bits = np.unpackbits(packed, axis=1).reshape(-1, 1, 64, 64)
    return torch.from_numpy(bits).float().expand(-1, 3, -1, -1)


def train(rank: int, processes: int, folder: Path, settings: ControlNetSettings) -> None:
    """Writes `controlnet.pt`, the running average of the weights; the UNet is frozen."""
    torch.set_num_threads(1)
    base = unet.build()
    base.load_state_dict(torch.load(folder / "unet.pt", weights_only=True))
    base.requires_grad_(False).to(settings.device)
    model = build(base).requires_grad_(True).to(settings.device)
    cache, edges = unet.Cache(folder), np.load(folder / "edges.npy", mmap_mode="r")
    noise = unet.Noise(cache, settings.batch_per_process, settings.empty_share, settings.seed, rank, settings.device)

    def predict(noisy: torch.Tensor, steps: torch.Tensor, states: torch.Tensor, chosen: np.ndarray) -> torch.Tensor:
        down, middle = model(noisy, steps, states, unpacked(edges[chosen]).to(settings.device), return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return base(noisy, steps, states, **residuals).sample

    loop.run(model, lambda step: noise.loss(step, predict), settings.rates, "controlnet", folder, rank, processes)
