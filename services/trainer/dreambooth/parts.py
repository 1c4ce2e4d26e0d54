"""The base model in memory: its modules in fp32 on the training device, every weight accounted for.

`training` loads it once; `stages` decides what of it trains.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from dreambooth.base_model import BaseModel
from dreambooth.errors import BaseModelInvalid
from dreambooth.recipe import TEXT_ENCODER, UNET


@dataclass(frozen=True)
class Parts:
    """The model. unet, text_encoder and vae are torch modules of libraries without types.

    alphas_cumprod: shape (num_timesteps,), fp32, of the base's noise schedule.
    """

    unet: Any
    text_encoder: Any
    vae: Any
    tokenizer: Any
    alphas_cumprod: torch.Tensor
    prediction_type: str
    scaling_factor: float
    scheduler_config: Any
    device: torch.device

    def latent_shape(self, batch_size: int, height_px: int, width_px: int = 0) -> tuple[int, int, int, int]:
        """Shape of the latents of `batch_size` pictures; squares if only one edge is given."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        channels = int(self.unet.config.in_channels)
        return (batch_size, channels, height_px // factor, (width_px or height_px) // factor)

    def module(self, name: str) -> Any:
        """The module that a stage of this name trains."""
        return {TEXT_ENCODER: self.text_encoder, UNET: self.unet}[name]

    @property
    def num_timesteps(self) -> int:
        """Length of the noise schedule, usually 1000."""
        return int(self.alphas_cumprod.shape[0])


def load(base: BaseModel, where: torch.device) -> Parts:
    """All modules frozen, in evaluation mode. Raises BaseModelInvalid if a weight is missing or of a wrong shape."""
    transformers_logging.disable_progress_bar()
    folder = base.folder
    noise_schedule = DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    unet = _module(UNet2DConditionModel, folder / "unet", base, torch_dtype=torch.float32)
    vae = _module(AutoencoderKL, folder / "vae", base, torch_dtype=torch.float32)
    text_encoder = _module(CLIPTextModel, folder / "text_encoder", base, dtype=torch.float32)
    for module in (unet, vae, text_encoder):
        module.requires_grad_(False).eval().to(where)
    return Parts(
        unet=unet,
        text_encoder=text_encoder,
        vae=vae,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        alphas_cumprod=noise_schedule.alphas_cumprod.to(where, torch.float32),
        prediction_type=base.prediction_type,
        scaling_factor=float(vae.config.scaling_factor),
        scheduler_config=noise_schedule.config,
        device=where,
    )


def reset_unet(parts: Parts, base: BaseModel) -> None:
    """Give the UNet the base's weights again."""
    fresh = _module(UNet2DConditionModel, base.folder / "unet", base, torch_dtype=torch.float32)
    parts.unet.load_state_dict(fresh.state_dict())


def _module(kind: Any, folder: Path, base: BaseModel, **options: Any) -> Any:
    """Load with the library's own reader, which knows the older key names, but accept no missing weight."""
    try:
        module, report = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise BaseModelInvalid(f"base model {base.name!r}: {folder.name} does not load: {error}") from error
    lacking = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
    if lacking:
        shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        raise BaseModelInvalid(
            f"base model {base.name!r}: {folder.name} has {len(lacking)} weights missing or misshaped: {shown}"
        )
    return module
