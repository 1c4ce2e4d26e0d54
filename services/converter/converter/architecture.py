"""Says what a checkpoint is from the names and shapes of its tensors, never from file names or sizes.

`inspection` calls this. A UNet is told by the width of its cross-attention, which no two families share.
"""

from collections.abc import Mapping
from typing import Final

Shapes = Mapping[str, tuple[int, ...]]

UNKNOWN: Final = "unknown"

_FAMILY_OF_WIDTH: Final = {768: "sd15", 1024: "sd21", 1280: "sdxl-refiner", 2048: "sdxl"}
_VARIANT_OF_CHANNELS: Final = {4: "", 5: "-depth", 8: "-instruct-pix2pix", 9: "-inpainting"}
_PREFIXES: Final = ("", "unet.", "controlnet.", "transformer.", "model.diffusion_model.", "control_model.")
_TO_KEY: Final = "transformer_blocks.0.attn2.to_k.weight"
# The first block with attention is the first level, or in SDXL the second.
_CROSS_ATTENTION: Final = tuple(
    f"{block}.{_TO_KEY}"
    for block in ("input_blocks.1.1", "input_blocks.4.1", "down_blocks.0.attentions.0", "down_blocks.1.attentions.0")
)
_FLUX: Final = ("double_blocks.0.img_attn.norm.key_norm.scale", "transformer_blocks.0.attn.norm_added_k.weight")
_CONTROLNET: Final = ("input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight")
_CONV_IN: Final = ("input_blocks.0.0.weight", "conv_in.weight")
_LORA: Final = (".lora_down.weight", ".lora_A.weight", ".lora.down.weight", "_lora.down.weight")

_COMPONENT_PREFIXES: Final = {
    "unet": ("model.diffusion_model.input_blocks.", "model.diffusion_model.time_embed."),
    "transformer": ("model.diffusion_model.double_blocks.", "double_blocks."),
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.t5xxl."),
    "ema": ("model_ema.",),
    "controlnet": ("control_model.", "input_hint_block.", "controlnet_cond_embedding."),
}


def detect(shapes: Shapes, prediction_type: str) -> str:
    """ "sd15", "sd21-512", "sd21-768", "sdxl", "flux", "controlnet-sd15", "lora-sd15", ... or "unknown".

    prediction_type tells SD2.1's two resolutions apart: epsilon is 512, v_prediction 768, "" leaves "sd21".
    """
    if any(name.endswith(_LORA) for name in shapes):
        return f"lora-{_lora_family(shapes)}"
    if _find(shapes, _FLUX) is not None:
        return "flux"
    cross_attention = _find(shapes, _CROSS_ATTENTION)
    family = _FAMILY_OF_WIDTH.get(cross_attention[-1]) if cross_attention and len(cross_attention) == 2 else None
    if family is None:
        return UNKNOWN
    if _find(shapes, _CONTROLNET) is not None:
        return f"controlnet-{family}"
    conv_in = _find(shapes, _CONV_IN)
    variant = _VARIANT_OF_CHANNELS.get(conv_in[1]) if conv_in and len(conv_in) == 4 else None
    if variant is None:
        return UNKNOWN
    if family == "sd21" and not variant and prediction_type:
        variant = "-768" if prediction_type == "v_prediction" else "-512"
    return family + variant


def components(shapes: Shapes) -> tuple[str, ...]:
    """The parts that a single file holds."""
    return tuple(
        component
        for component, prefixes in _COMPONENT_PREFIXES.items()
        if any(name.startswith(prefixes) for name in shapes)
    )


def _find(shapes: Shapes, names: tuple[str, ...]) -> tuple[int, ...] | None:
    """The shape of the first of these names that is there, with any of the usual prefixes."""
    for prefix in _PREFIXES:
        for name in names:
            if prefix + name in shapes:
                return shapes[prefix + name]
    return None


def _lora_family(shapes: Shapes) -> str:
    """Of the base model: the input width of a cross-attention key matrix, or the names of Flux's blocks."""
    for name, shape in shapes.items():
        if "double_blocks" in name or "single_transformer_blocks" in name:
            return "flux"
        if ("attn2_to_k" in name or "attn2.to_k" in name) and name.endswith(_LORA) and len(shape) >= 2:
            return _FAMILY_OF_WIDTH.get(shape[1], UNKNOWN)
    return UNKNOWN
