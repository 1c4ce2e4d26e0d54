"""The tensors of Stable Diffusion 1.x under both names, as data built from the structure of the blocks.

Canonical names are those of a Diffusers folder with the component in front ("unet.conv_in.weight"); single files use
the names of the original implementation (LDM). Only names and ranks matter here, so any width fits; the depth of
the text encoder is a parameter. `canonical` uses the table in both directions.

Sources of the names: CompVis/stable-diffusion ldm/modules/{diffusionmodules,attention}.py and diffusers' UNet2DConditionModel
and AutoencoderKL.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LDM_UNET: Final = "model.diffusion_model."
LDM_VAE: Final = "first_stage_model."
LDM_TEXT: Final = "cond_stage_model.transformer.text_model."
POSITION_IDS: Final = LDM_TEXT + "embeddings.position_ids"

_LEVELS: Final = 4
_LAYERS: Final = 2


@dataclass(frozen=True)
class KeyRule:
    """One tensor of the architecture.

    rank, ldm_rank: number of dimensions in a Diffusers folder and in a single file, 0 for "as it is"; they differ where
    one has a linear layer and the other a 1x1 convolution with the same values. is_shortcut: present only where a
    block changes its number of channels.
    """

    name: str
    ldm_name: str
    rank: int = 0
    ldm_rank: int = 0
    is_shortcut: bool = False


def rules(num_text_layers: int) -> tuple[KeyRule, ...]:
    """Every tensor of UNet, VAE and text encoder, shortcuts included."""
    return (*_unet(), *_vae(), *_text(num_text_layers))


def _both(name: str, ldm_name: str, is_shortcut: bool = False) -> Iterator[KeyRule]:
    """Weight and bias of one layer."""
    for part in ("weight", "bias"):
        yield KeyRule(f"{name}.{part}", f"{ldm_name}.{part}", is_shortcut=is_shortcut)


_UNET_RESNET: Final = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _unet() -> Iterator[KeyRule]:
    for name, ldm_name in _unet_layers():
        yield from _both(f"unet.{name}", LDM_UNET + ldm_name)
    for kind, name, ldm_name in _unet_blocks():
        if kind == "resnet":
            for part, ldm_part in _UNET_RESNET.items():
                yield from _both(
                    f"unet.{name}.{part}", f"{LDM_UNET}{ldm_name}.{ldm_part}", is_shortcut=part == "conv_shortcut"
                )
        else:
            for rule in _transformer():
                yield KeyRule(
                    f"unet.{name}.{rule.name}", f"{LDM_UNET}{ldm_name}.{rule.ldm_name}", rule.rank, rule.ldm_rank
                )


def _unet_layers() -> Iterator[tuple[str, str]]:
    yield "conv_in", "input_blocks.0.0"
    yield "time_embedding.linear_1", "time_embed.0"
    yield "time_embedding.linear_2", "time_embed.2"
    yield "conv_norm_out", "out.0"
    yield "conv_out", "out.2"
    for level in range(_LEVELS - 1):
        yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{(_LAYERS + 1) * (level + 1)}.0.op"
        # The upsampler follows the resnet and, where the level has them, the attention.
        place = 2 if _up_has_attention(level) else 1
        yield f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{(_LAYERS + 1) * level + _LAYERS}.{place}.conv"


def _unet_blocks() -> Iterator[tuple[str, str, str]]:
    """("resnet" or "attention", canonical name, LDM name) of every block."""
    for level in range(_LEVELS):
        for layer in range(_LAYERS):
            block = f"input_blocks.{(_LAYERS + 1) * level + layer + 1}"
            yield "resnet", f"down_blocks.{level}.resnets.{layer}", f"{block}.0"
            if level < _LEVELS - 1:
                yield "attention", f"down_blocks.{level}.attentions.{layer}", f"{block}.1"
        for layer in range(_LAYERS + 1):
            block = f"output_blocks.{(_LAYERS + 1) * level + layer}"
            yield "resnet", f"up_blocks.{level}.resnets.{layer}", f"{block}.0"
            if _up_has_attention(level):
                yield "attention", f"up_blocks.{level}.attentions.{layer}", f"{block}.1"
    yield "resnet", "mid_block.resnets.0", "middle_block.0"
    yield "attention", "mid_block.attentions.0", "middle_block.1"
    yield "resnet", "mid_block.resnets.1", "middle_block.2"


def _up_has_attention(level: int) -> bool:
    return level > 0


def _transformer() -> Iterator[KeyRule]:
    """The inside of a spatial transformer has the same names on both sides, 1x1 convolutions around it."""
    yield from _both("norm", "norm")
    for name in ("proj_in", "proj_out"):
        yield KeyRule(f"{name}.weight", f"{name}.weight", 4, 4)
        yield KeyRule(f"{name}.bias", f"{name}.bias")
    block = "transformer_blocks.0"
    for norm in ("norm1", "norm2", "norm3"):
        yield from _both(f"{block}.{norm}", f"{block}.{norm}")
    for attention in ("attn1", "attn2"):
        for matrix in ("to_q", "to_k", "to_v"):
            yield KeyRule(f"{block}.{attention}.{matrix}.weight", f"{block}.{attention}.{matrix}.weight")
        yield from _both(f"{block}.{attention}.to_out.0", f"{block}.{attention}.to_out.0")
    for layer in ("ff.net.0.proj", "ff.net.2"):  # 0 is the GEGLU
        yield from _both(f"{block}.{layer}", f"{block}.{layer}")


_VAE_ATTENTION: Final = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _vae() -> Iterator[KeyRule]:
    for name in ("quant_conv", "post_quant_conv"):
        yield from _both(f"vae.{name}", LDM_VAE + name)
    for half in ("encoder", "decoder"):
        for name, ldm_name in (("conv_in", "conv_in"), ("conv_norm_out", "norm_out"), ("conv_out", "conv_out")):
            yield from _both(f"vae.{half}.{name}", f"{LDM_VAE}{half}.{ldm_name}")
        for layer in range(2):
            yield from _vae_resnet(f"{half}.mid_block.resnets.{layer}", f"{half}.mid.block_{layer + 1}")
        yield from _vae_attention(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1")
    for level in range(_LEVELS):
        upper = _LEVELS - 1 - level  # LDM counts the decoder's levels from the image
        for layer in range(_LAYERS):
            yield from _vae_resnet(
                f"encoder.down_blocks.{level}.resnets.{layer}", f"encoder.down.{level}.block.{layer}"
            )
        for layer in range(_LAYERS + 1):
            yield from _vae_resnet(f"decoder.up_blocks.{level}.resnets.{layer}", f"decoder.up.{upper}.block.{layer}")
        if level < _LEVELS - 1:
            down, up = (
                f"encoder.down_blocks.{level}.downsamplers.0.conv",
                f"decoder.up_blocks.{level}.upsamplers.0.conv",
            )
            yield from _both(f"vae.{down}", f"{LDM_VAE}encoder.down.{level}.downsample.conv")
            yield from _both(f"vae.{up}", f"{LDM_VAE}decoder.up.{upper}.upsample.conv")


def _vae_resnet(name: str, ldm_name: str) -> Iterator[KeyRule]:
    for part in ("norm1", "conv1", "norm2", "conv2"):
        yield from _both(f"vae.{name}.{part}", f"{LDM_VAE}{ldm_name}.{part}")
    yield from _both(f"vae.{name}.conv_shortcut", f"{LDM_VAE}{ldm_name}.nin_shortcut", is_shortcut=True)


def _vae_attention(name: str, ldm_name: str) -> Iterator[KeyRule]:
    """Linear layers in a Diffusers folder, 1x1 convolutions in a single file."""
    yield from _both(f"vae.{name}.group_norm", f"{LDM_VAE}{ldm_name}.norm")
    for part, ldm_part in _VAE_ATTENTION.items():
        yield KeyRule(f"vae.{name}.{part}.weight", f"{LDM_VAE}{ldm_name}.{ldm_part}.weight", 2, 4)
        yield KeyRule(f"vae.{name}.{part}.bias", f"{LDM_VAE}{ldm_name}.{ldm_part}.bias")


def _text(num_layers: int) -> Iterator[KeyRule]:
    """CLIP's text model has the same names on both sides."""
    names = ["embeddings.token_embedding.weight", "embeddings.position_embedding.weight"]
    names += ["final_layer_norm.weight", "final_layer_norm.bias"]
    layers = ["layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"]
    layers += [f"self_attn.{matrix}" for matrix in ("q_proj", "k_proj", "v_proj", "out_proj")]
    for index in range(num_layers):
        names += [f"encoder.layers.{index}.{layer}.{part}" for layer in layers for part in ("weight", "bias")]
    for name in names:
        yield KeyRule(f"text_encoder.text_model.{name}", LDM_TEXT + name)
