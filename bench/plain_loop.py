"""A plain training loop in the order of diffusers' `train_dreambooth.py`: no accelerate, no torchvision, no caches.

It is our own reading of that script. It shows that the recorded figures of tests/dreambooth/reference are understood,
and it is the honest baseline of the benchmarks. All random numbers come from torch's one CPU stream, in this order:

- at the start of each epoch: the data loader's base seed (drawn and unused), then the seed of the shuffle;
- for each image of a batch: the crop's top and left edge, unless the resized image already has the crop's size;
- the images of batch k + 1 are loaded before batch k is trained on, within one epoch;
- for each batch: the latent's sample, the noise, the timesteps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, torch's own name for it
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image, ImageOps
from transformers import AutoTokenizer, CLIPTextModel

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8
WEIGHT_DECAY: Final = 1e-2
MAX_GRAD_NORM: Final = 1.0


@dataclass(frozen=True)
class Settings:
    """What the loop is told; names and defaults are the script's, where it has them."""

    prompt: str
    steps: int
    resolution_px: int = 512
    batch_size: int = 4
    learning_rate: float = 5e-6
    center_crop: bool = False
    seed: int = 0
    train_text_encoder: bool = False


def run(base: Path, images: Sequence[Path], settings: Settings) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train the model folder `base`, in fp32 on the CPU; returns the loss of each step and the weights of the UNet."""
    loop = PlainLoop(base, images, settings)
    losses = [loop.step() for _ in range(settings.steps)]
    return losses, {name: weight.detach() for name, weight in loop.unet.state_dict().items()}


class PlainLoop:
    """One training, step by step. unet, text_encoder: what is trained so far, by `optimizer`."""

    def __init__(self, base: Path, images: Sequence[Path], settings: Settings) -> None:
        self._ids = _tokens(base, settings.prompt)
        text_encoder: Any = CLIPTextModel.from_pretrained(base, subfolder="text_encoder")
        self.text_encoder = text_encoder.requires_grad_(settings.train_text_encoder)
        self._vae = AutoencoderKL.from_pretrained(base, subfolder="vae").requires_grad_(False)
        self.unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet").train()
        self._schedule = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
        self._trained = list(self.unet.parameters())
        if settings.train_text_encoder:
            self._trained += text_encoder.train().parameters()
        self.optimizer = torch.optim.AdamW(
            self._trained, lr=settings.learning_rate, betas=BETAS, eps=EPSILON, weight_decay=WEIGHT_DECAY
        )
        torch.manual_seed(settings.seed)  # after loading, which draws nothing
        self._batches = _batches(images, settings)

    def step(self) -> float:
        """One update; its loss."""
        vae, schedule = self._vae, self._schedule
        latents = vae.encode(next(self._batches)).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, schedule.config.num_train_timesteps, (len(latents),))
        noisy = schedule.add_noise(latents, noise, timesteps)
        states = self.text_encoder(self._ids.repeat(len(latents), 1), return_dict=False)[0]
        predicted = self.unet(noisy, timesteps, states, return_dict=False)[0]
        velocity = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(latents, noise, timesteps) if velocity else noise
        loss = F.mse_loss(predicted, target)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._trained, MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)  # the script's default
        return loss.item()


def _tokens(base: Path, prompt: str) -> torch.Tensor:
    """The prompt as [1, length], filled up to the model's length; the script masks none of it."""
    tokenizer = AutoTokenizer.from_pretrained(base, subfolder="tokenizer", use_fast=False)
    length = tokenizer.model_max_length
    found = tokenizer(prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    ids: torch.Tensor = found.input_ids
    return ids


def _batches(images: Sequence[Path], settings: Settings) -> Iterator[torch.Tensor]:
    """Batches of shape [B, 3, side, side] without end, epoch after epoch; the last of an epoch may be smaller."""
    while True:
        for _ in ("base seed of the workers, of which there are none", "seed of the shuffle"):
            seed = int(torch.empty((), dtype=torch.int64).random_().item())
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
        waiting = None
        for start in range(0, len(order), settings.batch_size):
            chosen = order[start : start + settings.batch_size]
            loaded = torch.stack([_pixels(images[number], settings) for number in chosen])
            if waiting is not None:
                yield waiting
            waiting = loaded
        if waiting is not None:
            yield waiting


def _pixels(file: Path, settings: Settings) -> torch.Tensor:
    """An image as [3, side, side] in -1..1: the shorter side resized to `side`, then cropped."""
    side = settings.resolution_px
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    shorter, longer = sorted(image.size)
    long_side = int(side * longer / shorter)
    size = (side, long_side) if image.width <= image.height else (long_side, side)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = _corner(image, settings)
    cropped = np.array(image.crop((left, top, left + side, top + side)), dtype=np.uint8)
    return torch.from_numpy(cropped).permute(2, 0, 1).contiguous().to(torch.float32).div(255).sub(0.5).div(0.5)


def _corner(image: Image.Image, settings: Settings) -> tuple[int, int]:
    """The crop's left and top edge in px."""
    across, down = image.width - settings.resolution_px, image.height - settings.resolution_px
    if settings.center_crop:
        return round(across / 2), round(down / 2)
    if across == 0 and down == 0:
        return 0, 0
    top = int(torch.randint(0, down + 1, (1,)).item())
    left = int(torch.randint(0, across + 1, (1,)).item())
    return left, top
