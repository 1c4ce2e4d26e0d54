"""Stage `save`: the BLIP-2 models as folders of the published layout, fp16 tensors that load as fp32."""

import json
import shutil
from pathlib import Path

import torch
from drawing.canvas import SIDE_PX
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedModel

from .blip2_models import DEVIATION, MEAN, QUERIES, build_captioner, build_matcher
from .blip2_tokenizers import build_bert, build_opt

PREPROCESSOR = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_processor_type": "BlipImageProcessor",
    "image_std": DEVIATION,
    "processor_class": "Blip2Processor",
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": SIDE_PX, "width": SIDE_PX},
}


def save_model(model: PreTrainedModel, tokenizer_folder: Path, folder: Path) -> None:
    """Replaces what `folder` held; raises nothing of its own."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(tokenizer_folder, part)
    _write(part / "preprocessor_config.json", PREPROCESSOR)
    _write(part / "processor_config.json", {"num_query_tokens": QUERIES, "processor_class": "Blip2Processor"})
    model.config.architectures = [type(model).__name__]
    model.config.dtype = torch.float32  # loaded as fp32, whatever the file holds
    model.config.save_pretrained(part)
    if model.can_generate():
        text = model.config.text_config
        GenerationConfig(
            bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
        ).save_pretrained(part)
    tied = set(model.all_tied_weights_keys)
    tensors = {name: t.half().contiguous() for name, t in model.state_dict().items() if name not in tied}
    save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})
    for file in part.iterdir():
        file.chmod(0o644)
    if folder.exists():
        shutil.rmtree(folder)
    part.replace(folder)


def save_all(work: Path, folder: Path) -> None:
    """Both models into `folder`; a part that is not trained yet keeps its random weights."""
    captioner = build_captioner(build_opt(work / "opt-tokenizer"))
    _fill(captioner, work / "blip2-captioner.pt")
    save_model(captioner, work / "opt-tokenizer", folder / "blip2-tiny")
    matcher = build_matcher(build_bert(work / "bert-tokenizer"))
    _fill(matcher, work / "blip2-matcher.pt")
    save_model(matcher, work / "bert-tokenizer", folder / "blip2-itm-tiny")


def _fill(model: PreTrainedModel, file: Path) -> None:
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))


def _write(file: Path, content: dict[str, object]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
