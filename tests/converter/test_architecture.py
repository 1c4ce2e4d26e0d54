"""What a checkpoint is, from names and shapes as the real files have them."""

import pytest
from converter import architecture

LDM = "model.diffusion_model."
KEY = "transformer_blocks.0.attn2.to_k.weight"


def unet(width: int, channels: int = 4, block: str = "input_blocks.1.1") -> dict[str, tuple[int, ...]]:
    return {f"{LDM}input_blocks.0.0.weight": (320, channels, 3, 3), f"{LDM}{block}.{KEY}": (320, width)}


@pytest.mark.parametrize(
    ("shapes", "prediction_type", "expected"),
    [
        (unet(768), "", "sd15"),
        (unet(768), "v_prediction", "sd15"),
        (unet(768, 9), "", "sd15-inpainting"),
        (unet(768, 8), "", "sd15-instruct-pix2pix"),
        (unet(1024), "epsilon", "sd21-512"),
        (unet(1024), "v_prediction", "sd21-768"),
        (unet(1024), "", "sd21"),
        (unet(2048, block="input_blocks.4.1"), "epsilon", "sdxl"),
        (unet(1280, block="input_blocks.4.1"), "", "sdxl-refiner"),
        ({"unet.conv_in.weight": (320, 4, 3, 3), f"unet.down_blocks.0.attentions.0.{KEY}": (320, 768)}, "", "sd15"),
        ({"conv_in.weight": (320, 4, 3, 3), f"down_blocks.1.attentions.0.{KEY}": (640, 2048)}, "", "sdxl"),
        ({"double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, "", "flux"),
        ({"transformer.transformer_blocks.0.attn.norm_added_k.weight": (128,)}, "", "flux"),
        (
            {
                "control_model.input_hint_block.0.weight": (16, 3, 3, 3),
                f"control_model.input_blocks.1.1.{KEY}": (320, 768),
            },
            "",
            "controlnet-sd15",
        ),
        (
            {
                "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
                f"down_blocks.1.attentions.0.{KEY}": (640, 2048),
            },
            "",
            "controlnet-sdxl",
        ),
        (
            {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 768)},
            "",
            "lora-sd15",
        ),
        ({"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 2048)}, "", "lora-sdxl"),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)}, "", "lora-flux"),
        ({"first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3)}, "", "unknown"),
        ({}, "", "unknown"),
        (unet(333), "", "unknown"),
    ],
)
def test_detects(shapes: dict[str, tuple[int, ...]], prediction_type: str, expected: str) -> None:
    assert architecture.detect(shapes, prediction_type) == expected


def test_names_the_parts_of_a_single_file() -> None:
    names = [
        "model.diffusion_model.input_blocks.0.0.weight",
        "first_stage_model.x",
        "cond_stage_model.x",
        "model_ema.x",
    ]
    assert architecture.components(dict.fromkeys(names, ())) == ("unet", "vae", "text_encoder", "ema")
