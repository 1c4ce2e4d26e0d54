"""Random weights of SD1.5's size for `train_gpu`, and the arithmetic of one training step on them."""

from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

CONTEXT_WIDTH: Final = 768
LATENT_CHANNELS: Final = 4
VAE_FACTOR: Final = 8


@dataclass(frozen=True)
class Size:
    """A UNet of SD1.5's topology. channels: of its four levels. norm_groups, heads: of its norms and attentions.
    edge_px: of the pictures. tokens: of a prompt."""

    channels: tuple[int, int, int, int]
    norm_groups: int
    heads: int
    edge_px: int
    tokens: int = 77

    def build(self, device: torch.device) -> Any:
        """The UNet with random fp32 weights, frozen, in evaluation mode."""
        with device:
            unet = UNet2DConditionModel(
                sample_size=self.edge_px // VAE_FACTOR,
                block_out_channels=self.channels,
                norm_num_groups=self.norm_groups,
                attention_head_dim=self.heads,
                cross_attention_dim=CONTEXT_WIDTH,
            )
        return unet.requires_grad_(False).eval()

    def latents(self, batch_size: int) -> tuple[int, int, int, int]:
        """Shape of a batch of latents."""
        edge = self.edge_px // VAE_FACTOR
        return batch_size, LATENT_CHANNELS, edge, edge


SD15: Final = Size((320, 640, 1280, 1280), norm_groups=32, heads=8, edge_px=512)
MICRO: Final = Size((4, 4, 8, 8), norm_groups=2, heads=2, edge_px=64)


def step_flops(size: Size, batch_size: int, tokens: int) -> int:
    """Floating-point operations of one forward and backward pass, 2 for a multiply-add, counted on the meta device.

    Work that gradient checkpointing would repeat does not count, nor do norms, activations and the optimizer: this is
    the usual numerator of model FLOPs utilisation.
    """
    meta = torch.device("meta")
    unet = size.build(meta).requires_grad_(True)
    with meta, FlopCounterMode(display=False) as counter:
        states = torch.empty(batch_size, tokens, CONTEXT_WIDTH)
        timesteps = torch.zeros(batch_size, dtype=torch.long)
        unet(torch.empty(size.latents(batch_size)), timesteps, states, return_dict=False)[0].sum().backward()
    return int(counter.get_total_flops())
