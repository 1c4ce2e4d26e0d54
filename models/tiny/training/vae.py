"""Stage 1: the KL autoencoder of factor 8, with the block structure of SD1.5."""

import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from drawing.scenes import draw, random_scene
from drawing.toys import draw_doodle, draw_toy, random_toy

from .muon import Muon
from .ranks import average_gradients, cosine, start


@dataclass(frozen=True)
class VaeSettings:
    steps: int = 1200
    batch_per_process: int = 6
    muon_rate: float = 0.015
    adam_rate: float = 6e-4
    muon: bool = True
    kl_weight: float = 1e-6
    sharp_from: float = 0.4  # share of the steps after which L1 and gradient loss come in
    seed: int = 1


def build() -> AutoencoderKL:
    """Four blocks as in SD1.5, narrow; GroupNorm of two groups, since small groups forget the colour of flat areas."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
    )
    with torch.no_grad():  # start with a posterior of small variance: noise of deviation 1 hides the gradient
        vae.encoder.conv_out.weight[4:] *= 0.1
        vae.quant_conv.weight[4:] *= 0.1
        vae.quant_conv.bias[4:] = -5.0
    return vae


def picture(rng: random.Random) -> np.ndarray:
    kind = rng.random()
    if kind < 0.45:
        image = draw(random_scene(rng))
    else:
        image = draw_toy(random_toy(rng)) if kind < 0.8 else draw_doodle(rng)
    return np.asarray(image)


def as_tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    """uint8 pictures to float in -1 .. 1, NCHW."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def edges_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    across = (a.diff(dim=3) - b.diff(dim=3)).abs().mean()
    return across + (a.diff(dim=2) - b.diff(dim=2)).abs().mean()


def train(rank: int, processes: int, folder: Path, settings: VaeSettings) -> None:
    """Writes `vae.pt` (state dict) every 200 steps and at the end; `vae-state.pt` lets it resume."""
    start(rank, processes, str(folder / "vae.group"))
    vae = build()
    matrices = [
        p
        for n, p in vae.named_parameters()
        if p.ndim >= 2 and settings.muon and "conv_in" not in n and "conv_out" not in n
    ]
    chosen = {id(p) for p in matrices}
    others = [p for p in vae.parameters() if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, settings.adam_rate, (0.9, 0.99), weight_decay=0)
    ]
    if matrices:
        optimizers.append(Muon(matrices, settings.muon_rate))
    rates = [o.param_groups[0]["lr"] for o in optimizers]
    first = 0
    state_file = folder / "vae-state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        vae.load_state_dict(state["vae"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["step"]
    began = time.monotonic()
    for step in range(first, settings.steps):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * cosine(step, settings.steps)
        rng = random.Random(f"{settings.seed}/{step}/{rank}")
        torch.manual_seed(settings.seed * 1_000_003 + step * 64 + rank)
        pictures = as_tensor([picture(rng) for _ in range(settings.batch_per_process)])
        posterior = vae.encode(pictures).latent_dist
        output = vae.decode(posterior.sample()).sample
        squared = F.mse_loss(output, pictures)
        sharp = min(1.0, max(0.0, (step / settings.steps - settings.sharp_from) / 0.1))
        loss = squared + settings.kl_weight * posterior.kl().mean()
        if sharp > 0:
            loss = loss + sharp * 0.1 * (F.l1_loss(output, pictures) + edges_loss(output, pictures))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        average_gradients(vae.parameters(), processes)
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if rank == 0 and step % 20 == 0:
            psnr = -10 * torch.log10(squared / 4).item()
            deviation = posterior.std.mean().item() / posterior.mean.std().item()
            print(f"vae {step} psnr {psnr:.2f} std/mean {deviation:.3f} {time.monotonic() - began:.0f}s", flush=True)
        if rank == 0 and (step % 200 == 199 or step == settings.steps - 1):
            torch.save(
                {"vae": vae.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step + 1},
                state_file,
            )
            torch.save(vae.state_dict(), folder / "vae.pt")
    sys.stdout.flush()
