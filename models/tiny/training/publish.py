"""Stage `save`: the trained parts as an ordinary diffusers folder in fp16 safetensors."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from .unet import SCHEDULE

MODEL_INDEX = {
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


def save_model(model: AutoencoderKL | UNet2DConditionModel | ControlNetModel, folder: Path) -> None:
    model.half().save_pretrained(folder)
    (folder / "diffusion_pytorch_model.safetensors").chmod(0o644)


def save_text_encoder(encoder: CLIPTextModel, folder: Path) -> None:
    """With the nested names of published SD1.5 folders; transformers 5 would write them without `text_model.`."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder.config.architectures = ["CLIPTextModel"]
    encoder.config.dtype = torch.float32  # what from_pretrained loads it as: the other parts come as fp32, too
    encoder.config.save_pretrained(folder)
    tensors = {name.removeprefix("text_model."): t.half().contiguous() for name, t in encoder.state_dict().items()}
    tensors.pop("embeddings.position_ids", None)
    file = folder / "model.safetensors"
    save_file({f"text_model.{name}": t for name, t in tensors.items()}, file, metadata={"format": "pt"})
    file.chmod(0o644)


def save_pipeline(
    folder: Path, vae: AutoencoderKL, encoder: CLIPTextModel, unet: UNet2DConditionModel, tokens: CLIPTokenizer
) -> None:
    """Replaces `folder` by the pipeline of these parts."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
    PNDMScheduler(**_without_clip(SCHEDULE), skip_prk_steps=True, set_alpha_to_one=False).save_pretrained(
        folder / "scheduler"
    )
    _keep_clip_sample(folder / "scheduler" / "scheduler_config.json")
    # the classic files; fast tokenizers of transformers 5 would write tokenizer.json alone
    (folder / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(Path(tokens.name_or_path) / name, folder / "tokenizer" / name)
    save_text_encoder(encoder, folder / "text_encoder")
    save_model(vae, folder / "vae")
    save_model(unet, folder / "unet")


def _keep_clip_sample(config: Path) -> None:
    """As in published SD1.5 folders: PNDM ignores the field, a DDIM made from this file would clip latents without it."""
    fields = json.loads(config.read_text()) | {"clip_sample": SCHEDULE["clip_sample"]}
    config.write_text(json.dumps(dict(sorted(fields.items())), indent=2) + "\n")


def _without_clip(schedule: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in schedule.items() if name != "clip_sample"}


def load_parts(work: Path) -> tuple[AutoencoderKL, CLIPTextModel, UNet2DConditionModel, CLIPTokenizer]:
    """The parts with their trained weights; a part not trained yet keeps its random ones."""
    from . import text, unet, vae

    tokens = CLIPTokenizer.from_pretrained(work / "tokenizer")
    parts = vae.build(), text.build(tokens), unet.build()
    for part, name in zip(parts, ("vae.pt", "text.pt", "unet.pt"), strict=True):
        if (work / name).exists():
            part.load_state_dict(torch.load(work / name, weights_only=True))
    if (work / "vae-sharp.pt").exists():
        parts[0].load_state_dict(torch.load(work / "vae-sharp.pt", weights_only=True))
    scale = work / "scaling-factor.json"
    if scale.exists():
        parts[0].register_to_config(scaling_factor=json.loads(scale.read_text()))
    return (*parts, tokens)


def save_all(work: Path, models: Path) -> None:
    """Writes sd15-tiny and, once it is trained, controlnet-canny-tiny into `models`."""
    from . import controlnet

    vae, encoder, base, tokens = load_parts(work)
    guide_file = work / "controlnet.pt"
    if guide_file.exists():
        guide = controlnet.build(base)
        guide.load_state_dict(torch.load(guide_file, weights_only=True))
        shutil.rmtree(models / "controlnet-canny-tiny", ignore_errors=True)
        save_model(guide, models / "controlnet-canny-tiny")
    save_pipeline(models / "sd15-tiny", vae, encoder, base, tokens)
