"""Scores of sd15-tiny and controlnet-canny-tiny on held-out scenes, judged by plain computer vision."""

import random
from pathlib import Path

import torch
from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from drawing import edges, judge, scenes
from PIL import Image

STEPS = 25
GUIDANCE = 2.5  # scenes are right up to 7; toys are cleanest around 2
CONTROL_GUIDANCE = 2.5


def load(folder: Path) -> StableDiffusionPipeline:
    """The pipeline in fp32 with DDIM, without a progress bar."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, torch_dtype=torch.float32)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def with_controlnet(pipeline: StableDiffusionPipeline, folder: Path) -> StableDiffusionControlNetPipeline:
    model = ControlNetModel.from_pretrained(folder, local_files_only=True, torch_dtype=torch.float32)
    guided = StableDiffusionControlNetPipeline(**pipeline.components, controlnet=model, requires_safety_checker=False)
    guided.set_progress_bar_config(disable=True)
    return guided


def held_out(count: int, seed: int) -> list[scenes.Scene]:
    rng = random.Random(seed)
    return [scenes.random_scene(rng, held_out=True) for _ in range(count)]


def generate(pipeline: StableDiffusionPipeline, prompts: list[str], seed: int, steps: int = STEPS) -> list[Image.Image]:
    """One 64 x 64 picture for each prompt, in batches of 16; the seeds are `seed`, `seed` + 1, ..."""
    pictures: list[Image.Image] = []
    for first in range(0, len(prompts), 16):
        batch = prompts[first : first + 16]
        generators = [torch.Generator().manual_seed(seed + first + i) for i in range(len(batch))]
        pictures += pipeline(batch, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generators).images
    return pictures


def guide(
    pipeline: StableDiffusionControlNetPipeline,
    prompts: list[str],
    maps: list[Image.Image],
    seed: int,
    steps: int = STEPS,
) -> list[Image.Image]:
    """Like `generate`, along edge maps."""
    pictures: list[Image.Image] = []
    for first in range(0, len(prompts), 16):
        batch, lines = prompts[first : first + 16], maps[first : first + 16]
        generators = [torch.Generator().manual_seed(seed + first + i) for i in range(len(batch))]
        pictures += pipeline(
            batch, lines, num_inference_steps=steps, guidance_scale=CONTROL_GUIDANCE, generator=generators
        ).images
    return pictures


def txt2img_scores(pictures: list[Image.Image], wanted: list[scenes.Scene]) -> dict[str, float]:
    """Shares of pictures that show the asked shape, colour, size and background."""
    verdicts = [judge.judge(picture) for picture in pictures]
    return {
        name: sum(getattr(v, name) == getattr(s, name) for v, s in zip(verdicts, wanted, strict=True)) / len(wanted)
        for name in ("shape", "colour", "size", "background")
    }


def edge_agreement(pictures: list[Image.Image], maps: list[Image.Image]) -> float:
    """Mean IoU between the edges of the pictures and the maps asked for."""
    values = [edges.agreement(edges.canny(p), m) for p, m in zip(pictures, maps, strict=True)]
    return sum(values) / len(values)


def measure(models: Path, count: int = 128, seed: int = 1000, steps: int = STEPS) -> dict[str, float]:
    """Every score of the folder `models`; keys say what is measured, values are shares or IoU in 0 .. 1."""
    wanted = held_out(count, seed)
    prompts = [scenes.captions(scene)[0] for scene in wanted]
    pipeline = load(models / "sd15-tiny")
    pictures = generate(pipeline, prompts, seed, steps)
    found = {f"txt2img_{name}": value for name, value in txt2img_scores(pictures, wanted).items()}
    few = count // 2
    maps = [edges.canny(scenes.draw(scene)) for scene in wanted[:few]]
    guided = guide(with_controlnet(pipeline, models / "controlnet-canny-tiny"), prompts[:few], maps, seed, steps)
    found["canny_iou_guided"] = edge_agreement(guided, maps)
    found["canny_iou_unguided"] = edge_agreement(pictures[:few], maps)
    return {name: round(value, 4) for name, value in found.items()}
