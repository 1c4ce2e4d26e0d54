"""Stage `restore`: the committed weights as the results of their stages, so that training goes on from them.

States of optimizers are not committed: a stage that goes on from a result warms up again.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval

_RESULTS = {
    "vae.pt": "sd15-tiny/vae/diffusion_pytorch_model.safetensors",
    "text.pt": "sd15-tiny/text_encoder/model.safetensors",
    "unet.pt": "sd15-tiny/unet/diffusion_pytorch_model.safetensors",
    "controlnet.pt": "controlnet-canny-tiny/diffusion_pytorch_model.safetensors",
}


def restore(models: Path, work: Path) -> None:
    """Writes fp32 state dicts, the tokenizer folder and the scaling factor into `work`."""
    for result, published in _RESULTS.items():
        loaded = load_file(models / published).items()
        weights = {name.removeprefix("text_model."): tensor.float() for name, tensor in loaded}
        torch.save(weights, work / result)
    shutil.copytree(models / "sd15-tiny" / "tokenizer", work / "tokenizer", dirs_exist_ok=True)
    vae = json.loads((models / "sd15-tiny" / "vae" / "config.json").read_text())
    (work / "scaling-factor.json").write_text(json.dumps(vae["scaling_factor"]) + "\n")


def restore_blip2(models: Path, work: Path) -> None:
    """Writes what the stages `join` and `match` would have written; tokenizers are built anew by every stage."""
    captioner = Blip2ForConditionalGeneration.from_pretrained(models / "blip2-tiny", dtype=torch.float32)
    torch.save(captioner.state_dict(), work / "blip2-captioner.pt")
    matcher = Blip2ForImageTextRetrieval.from_pretrained(models / "blip2-itm-tiny", dtype=torch.float32)
    torch.save(matcher.state_dict(), work / "blip2-matcher.pt")
