"""What a generation answers: pictures with infotexts inside, and A1111's `info` object.

Called by `engine.py` with a plan and what was drawn.
"""

import json
import time
from typing import Any

from pydantic import BaseModel

from webui_engine import VERSION, images, infotext, lora_files, prompts
from webui_engine.catalogue import Model
from webui_engine.generate import Drawn
from webui_engine.planning import Plan

_WRITTEN_BY = f"darkroom {VERSION}"


def build(
    request: BaseModel, plan: Plan, drawn: Drawn, model: Model, clip_skip: int, send_images: bool
) -> dict[str, Any]:
    """The JSON of txt2img and img2img. Control maps follow the pictures, without an infotext of their own."""
    texts = [_infotext(plan, drawn, model, clip_skip, number) for number in range(len(drawn.images))]
    encoded = [images.encode_png(image, text) for image, text in zip(drawn.images, texts, strict=True)]
    maps = [image for image, unit in zip(drawn.maps, plan.units, strict=True) if unit.save_map]
    encoded += [images.encode_png(image) for image in maps]
    return {
        "images": encoded if send_images else [],
        "parameters": _echo(request),
        "info": json.dumps(_info(plan, drawn, model, clip_skip, texts), ensure_ascii=False),
    }


def _echo(request: BaseModel) -> dict[str, Any]:
    """The request as it was understood, without the pictures unless the client wants them back."""
    parameters = request.model_dump()
    if not parameters.get("include_init_images", True):
        parameters |= {"init_images": None, "mask": None}
    return parameters


def _infotext(plan: Plan, drawn: Drawn, model: Model, clip_skip: int, number: int) -> str:
    """The text of picture `number`; keys in the order of A1111's create_infotext."""
    varied = plan.subseed_strength > 0
    emphasized = any(prompts.has_emphasis(prompts.parse(text)) for text in (plan.words, plan.negative_prompt))
    pairs: list[tuple[str, object]] = [
        ("Steps", plan.steps),
        ("Sampler", plan.choice.sampler.name),
        ("Schedule type", plan.choice.schedule.label),
        ("CFG scale", plan.cfg_scale),
        ("Seed", plan.seeds[number]),
        ("Size", f"{drawn.width}x{drawn.height}"),
        ("Model hash", model.short_hash),
        ("Model", model.name),
        ("Variation seed", plan.subseeds[number] if varied else None),
        ("Variation seed strength", plan.subseed_strength if varied else None),
        ("Denoising strength", plan.denoising_strength),
        ("Clip skip", clip_skip if clip_skip > 1 else None),
        ("RNG", "CPU"),
        ("Emphasis", "Original" if emphasized else None),
        ("Eta DDIM", plan.eta or None),
        *_extra(plan).items(),
        ("Version", _WRITTEN_BY),
    ]
    return infotext.render(plan.prompt, plan.negative_prompt, pairs)


def _extra(plan: Plan) -> dict[str, str]:
    """What is drawn with beside the model. LoRAs by the names in their tags, with A1111's hashes; the weights are in the prompt."""
    hashes = {use.tag.name: lora_files.short_hash(use.lora.path, use.lora.sha256) for use in plan.loras}
    loras = {"Lora hashes": ", ".join(f"{name}: {digest}" for name, digest in hashes.items())} if hashes else {}
    return loras | {f"ControlNet {index}": unit.infotext for index, unit in enumerate(plan.units)}


def _info(plan: Plan, drawn: Drawn, model: Model, clip_skip: int, texts: list[str]) -> dict[str, Any]:
    count = len(drawn.images)
    return {
        "prompt": plan.prompt,
        "all_prompts": [plan.prompt] * count,
        "negative_prompt": plan.negative_prompt,
        "all_negative_prompts": [plan.negative_prompt] * count,
        "seed": plan.seeds[0],
        "all_seeds": plan.seeds[:count],
        "subseed": plan.subseeds[0],
        "all_subseeds": plan.subseeds[:count],
        "subseed_strength": plan.subseed_strength,
        "width": drawn.width,
        "height": drawn.height,
        "sampler_name": plan.choice.sampler.name,
        "cfg_scale": plan.cfg_scale,
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": model.name,
        "sd_model_hash": model.short_hash,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": plan.denoising_strength,
        "extra_generation_params": _extra(plan),
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S"),
        "clip_skip": clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": _WRITTEN_BY,
    }
