"""Stage 1: the KL autoencoder of factor 8, with the block structure of SD1.5."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from drawing.doodles import draw_critter, draw_doodle, draw_recoloured
from drawing.scenes import draw, random_scene
from drawing.toys import draw_toy, random_toy
from torch.nn import functional

from . import loop
from .loop import Rates

VAE_RATES = Rates(steps=4000, muon=0.012, adam=6e-4, average_decay=0.97)
DECODER_RATES = Rates(steps=400, muon=0.008, adam=3e-4, average_decay=0.9)
DECODER_NOISE = 0.04  # of the latents' deviation


@dataclass(frozen=True)
class VaeSettings:
    rates: Rates = VAE_RATES
    batch_per_process: int = 8
    kl_weight: float = 3e-7
    sharp_from: float = 0.2  # share of the steps after which L1 and gradient loss come in
    seed: int = 1
    device: str = "cpu"


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


_PAINTERS = (
    lambda rng: draw(random_scene(rng)),
    lambda rng: draw_toy(random_toy(rng)),
    draw_recoloured,
    draw_critter,
    draw_doodle,
)


def picture(rng: random.Random) -> np.ndarray:
    """A random training picture, uint8, 64 x 64 x 3."""
    (painter,) = rng.choices(_PAINTERS, (45, 20, 10, 20, 5))
    return np.asarray(painter(rng))


def as_tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    """uint8 pictures to float in -1 .. 1, NCHW."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def edges_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    across = (a.diff(dim=3) - b.diff(dim=3)).abs().mean()
    return across + (a.diff(dim=2) - b.diff(dim=2)).abs().mean()


def train(rank: int, processes: int, folder: Path, settings: VaeSettings) -> None:
    """Writes `vae.pt`."""
    torch.set_num_threads(1)
    vae = build().to(settings.device)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = random.Random(f"{settings.seed}/{step}/{rank}")
        torch.manual_seed(settings.seed * 1_000_003 + step * 64 + rank)
        pictures = as_tensor([picture(rng) for _ in range(settings.batch_per_process)]).to(settings.device)
        posterior = vae.encode(pictures).latent_dist
        output = vae.decode(posterior.sample()).sample
        squared = functional.mse_loss(output, pictures)
        loss = squared + settings.kl_weight * posterior.kl().mean()
        sharp = min(1.0, max(0.0, (step / settings.rates.steps - settings.sharp_from) / 0.1))
        if sharp > 0:
            loss = loss + sharp * 0.1 * (functional.l1_loss(output, pictures) + edges_loss(output, pictures))
        deviation = (posterior.std.mean() / posterior.mean.std()).item()
        return loss, {"psnr": -10 * torch.log10(squared / 4).item(), "std/mean": deviation}

    loop.run(vae, loss_of, settings.rates, "vae", folder, rank, processes)


def sharpen(rank: int, processes: int, folder: Path, settings: VaeSettings) -> None:
    """Trains the decoder alone on `vae.pt` and writes `vae-sharp.pt`; latents keep their meaning.

    A little noise on the latents makes the decoder forgiving of what the UNet gets slightly wrong.
    """
    torch.set_num_threads(1)
    vae = build()
    vae.load_state_dict(torch.load(folder / "vae.pt", weights_only=True))
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    vae.to(settings.device)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = random.Random(f"{settings.seed + 100}/{step}/{rank}")
        torch.manual_seed((settings.seed + 100) * 1_000_003 + step * 64 + rank)
        pictures = as_tensor([picture(rng) for _ in range(settings.batch_per_process)]).to(settings.device)
        with torch.no_grad():
            posterior = vae.encode(pictures).latent_dist
            latents = posterior.sample()
            latents += DECODER_NOISE * latents.std() * torch.randn_like(latents)
        output = vae.decode(latents).sample
        squared = functional.mse_loss(output, pictures)
        loss = squared + 0.1 * (functional.l1_loss(output, pictures) + edges_loss(output, pictures))
        return loss, {"psnr": -10 * torch.log10(squared / 4).item()}

    loop.run(vae, loss_of, settings.rates, "vae-sharp", folder, rank, processes)
