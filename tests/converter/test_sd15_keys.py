"""The table of SD1.5 against diffusers' own models (on the meta device: names and shapes without memory)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from converter import sd15_keys


@pytest.fixture(scope="module")
def full_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """SD1.5 as diffusers and transformers build it."""
    torch = pytest.importorskip("torch")
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
    models = {"unet": unet, "vae": vae}
    return {name: {k: tuple(v.shape) for k, v in model.state_dict().items()} for name, model in models.items()}


def test_the_full_model_has_the_known_numbers_of_keys(full_shapes: dict[str, dict[str, tuple[int, ...]]]) -> None:
    assert {name: len(shapes) for name, shapes in full_shapes.items()} == {"unet": 686, "vae": 248}
    table = {rule.name: rule for rule in sd15_keys.rules(12)}
    for component, shapes in full_shapes.items():
        names = {f"{component}.{name}" for name in shapes}
        assert not names - set(table)
        missing = {name for name in table if name.startswith(f"{component}.")} - names
        assert all(table[name].is_shortcut for name in missing)
    assert sum(name.startswith("text_encoder.") for name in table) == 196


def test_ranks_are_those_of_the_model(full_shapes: dict[str, dict[str, tuple[int, ...]]]) -> None:
    for rule in sd15_keys.rules(12):
        component, _, name = rule.name.partition(".")
        shape = full_shapes.get(component, {}).get(name)
        if shape is not None and rule.rank:
            assert len(shape) == rule.rank, rule.name


def test_the_test_models_have_the_shapes_of_diffusers(
    full_shapes: dict[str, dict[str, tuple[int, ...]]], sizes: Callable[..., Any]
) -> None:
    ours = sizes(unet=(320, 640, 1280, 1280), vae=(128, 256, 512, 512)).shapes
    assert ours["unet"] == full_shapes["unet"]
    assert ours["vae"] == full_shapes["vae"]


def test_names_are_unique_on_both_sides() -> None:
    rules = sd15_keys.rules(12)
    assert len({rule.name for rule in rules}) == len(rules) == len({rule.ldm_name for rule in rules})


@pytest.mark.parametrize(
    ("name", "ldm_name"),
    [
        ("unet.up_blocks.0.upsamplers.0.conv.weight", "model.diffusion_model.output_blocks.2.1.conv.weight"),
        ("unet.up_blocks.2.upsamplers.0.conv.bias", "model.diffusion_model.output_blocks.8.2.conv.bias"),
        ("unet.down_blocks.3.resnets.1.conv2.weight", "model.diffusion_model.input_blocks.11.0.out_layers.3.weight"),
        ("unet.mid_block.attentions.0.proj_in.weight", "model.diffusion_model.middle_block.1.proj_in.weight"),
        ("unet.time_embedding.linear_2.bias", "model.diffusion_model.time_embed.2.bias"),
        ("vae.decoder.up_blocks.0.resnets.2.norm1.weight", "first_stage_model.decoder.up.3.block.2.norm1.weight"),
        ("vae.encoder.mid_block.attentions.0.to_out.0.weight", "first_stage_model.encoder.mid.attn_1.proj_out.weight"),
        (
            "text_encoder.text_model.encoder.layers.11.mlp.fc1.bias",
            "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc1.bias",
        ),
    ],
)
def test_some_pairs_by_hand(name: str, ldm_name: str) -> None:
    assert {rule.name: rule.ldm_name for rule in sd15_keys.rules(12)}[name] == ldm_name


def test_the_tiny_model_is_covered(tiny_models: Path) -> None:
    import json

    known = {rule.name for rule in sd15_keys.rules(2)}
    for component, stem in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")):
        with (tiny_models / "sd15-tiny" / component / f"{stem}.safetensors").open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        assert {f"{component}.{name}" for name in header if name != "__metadata__"} <= known
