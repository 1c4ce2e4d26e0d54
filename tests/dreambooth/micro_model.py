"""A random model of SD1.5 or SD2.1 topology in seconds: every level, every key name, almost no width."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

TEXT_WIDTH = 768
_END = "<|endoftext|>"


@dataclass(frozen=True)
class Topology:
    """Where the generations of Stable Diffusion differ. unet, text: fields of the configurations. pad_token: of the
    tokenizer. position_ids: whether the published file of the text encoder holds this buffer."""

    text_width: int
    unet: dict[str, Any]
    text: dict[str, Any] = field(default_factory=dict)
    pad_token: str = _END
    position_ids: bool = True


SD15 = Topology(TEXT_WIDTH, {"sample_size": 4, "attention_head_dim": 2})
# At this width one layer of the text encoder weighs seven times as much as everything else together.
SHALLOW = Topology(TEXT_WIDTH, SD15.unet, {"num_hidden_layers": 0})
# attention_head_dim counts heads here, more of them in wider levels; the text encoder is OpenCLIP's without its last layer, and its
# configuration has the end-of-text number of CLIP's first release.
_SD21_UNET = {"attention_head_dim": [1, 2, 4, 4], "use_linear_projection": True, "upcast_attention": True}
_SD21_TEXT = {"hidden_act": "gelu", "num_hidden_layers": 3, "projection_dim": 512}
_SD21_TEXT |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
SD21_768 = Topology(1024, {"sample_size": 24, **_SD21_UNET}, _SD21_TEXT, "!", position_ids=False)
SD21_512 = Topology(1024, {"sample_size": 16, **_SD21_UNET}, _SD21_TEXT, "!", position_ids=False)
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


def build(
    folder: Path,
    prediction_type: str = "epsilon",
    dtype: torch.dtype = torch.float32,
    topology: Topology = SD15,
) -> Path:
    """Write the model to `folder`, in the layout of published folders of that generation, and return it."""
    torch.manual_seed(7)
    num_tokens = _write_tokenizer(folder / "tokenizer", topology.pad_token)
    _unet(topology).to(dtype).save_pretrained(folder / "unet")
    _vae().to(dtype).save_pretrained(folder / "vae")
    _write_text_encoder(folder / "text_encoder", num_tokens, dtype, topology)
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


def _unet(topology: Topology) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=2,
        norm_num_groups=2,
        cross_attention_dim=topology.text_width,
        **topology.unet,
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


def _write_text_encoder(folder: Path, num_tokens: int, dtype: torch.dtype, topology: Topology) -> None:
    fields = {
        "vocab_size": num_tokens,
        "hidden_size": topology.text_width,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
        "bos_token_id": num_tokens - 2,
        "eos_token_id": num_tokens - 1,
        "pad_token_id": num_tokens - 1,
    }
    encoder = CLIPTextModel(CLIPTextConfig(**(fields | topology.text)))
    encoder.config.architectures = ["CLIPTextModel"]
    encoder.config.save_pretrained(folder)
    weights = {name.removeprefix("text_model."): weight for name, weight in encoder.state_dict().items()}
    classic = {f"text_model.{name}": weight.to(dtype).contiguous() for name, weight in weights.items()}
    if topology.position_ids:  # as the original SD1.5 file has it
        classic["text_model.embeddings.position_ids"] = torch.arange(16).unsqueeze(0)
    save_file(classic, folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(folder: Path, pad_token: str) -> int:
    """Single letters, with and without the end-of-word mark, and nothing merged; returns the number of tokens."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": _END, "unk_token": _END, "pad_token": _END}
    # SD2.1's says "!" in this file alone.
    (folder / "special_tokens_map.json").write_text(json.dumps({**special, "pad_token": pad_token}))
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return len(tokens)
