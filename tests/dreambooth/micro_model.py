"""A random model of SD1.5 topology in seconds: every level and layer, every key name, almost no width."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

TEXT_WIDTH = 768
_MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def build(folder: Path, prediction_type: str = "epsilon", dtype: torch.dtype = torch.float32) -> Path:
    """Write the model to `folder`, in the layout of published SD1.5 folders, and return it."""
    torch.manual_seed(7)
    num_tokens = _write_tokenizer(folder / "tokenizer")
    _unet().to(dtype).save_pretrained(folder / "unet")
    _vae().to(dtype).save_pretrained(folder / "vae")
    _write_text_encoder(folder / "text_encoder", num_tokens, dtype)
    PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        skip_prk_steps=True,
        prediction_type=prediction_type,
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(_MODEL_INDEX, indent=2) + "\n")
    return folder


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=2,
        norm_num_groups=2,
        attention_head_dim=2,
        cross_attention_dim=TEXT_WIDTH,
    )


def _vae() -> AutoencoderKL:
    block = "EncoderBlock2D"
    return AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=(f"Down{block}",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=2,
        sample_size=32,
    )


def _write_text_encoder(folder: Path, num_tokens: int, dtype: torch.dtype) -> None:
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=num_tokens,
            hidden_size=TEXT_WIDTH,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=16,
            bos_token_id=num_tokens - 2,
            eos_token_id=num_tokens - 1,
            pad_token_id=num_tokens - 1,
        )
    )
    encoder.config.architectures = ["CLIPTextModel"]
    encoder.config.save_pretrained(folder)
    weights = {name.removeprefix("text_model."): weight for name, weight in encoder.state_dict().items()}
    classic = {f"text_model.{name}": weight.to(dtype).contiguous() for name, weight in weights.items()}
    classic["text_model.embeddings.position_ids"] = torch.arange(16).unsqueeze(0)  # as the original SD1.5 file has it
    save_file(classic, folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(folder: Path) -> int:
    """Single letters, with and without the end-of-word mark, and nothing merged; returns the number of tokens."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    end = "<|endoftext|>"
    special = {"bos_token": "<|startoftext|>", "eos_token": end, "unk_token": end, "pad_token": end}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return len(tokens)
