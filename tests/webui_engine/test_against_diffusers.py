"""The denoising loop against diffusers' own pipelines: the same seed gives the same picture."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
)

from .conftest import Running, as_base64, decoded, drawing

PROMPT, NEGATIVE, SEED, STEPS, SCALE = "a red circle on grass", "blue", 11, 4, 5.0
REQUEST = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": SEED, "steps": STEPS, "cfg_scale": SCALE}


@pytest.fixture(scope="module")
def pipeline(running: Running) -> Any:
    """diffusers' pipeline of sd15-tiny."""
    found = StableDiffusionPipeline.from_pretrained(str(running.models / "sd15-tiny"), safety_checker=None)
    found.set_progress_bar_config(disable=True)
    return found


def draw(pipeline: Any, **arguments: Any) -> Any:
    pictures = pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        generator=torch.Generator("cpu").manual_seed(SEED),
        **arguments,
    ).images
    return np.asarray(pictures[0]).astype(int)


@pytest.mark.parametrize("sampler", ["PLMS", "Euler", "DDIM"])
def test_words_alone(client: httpx.Client, pipeline: Any, sampler: str) -> None:
    config = pipeline.scheduler.config
    schedulers = {
        "PLMS": pipeline.scheduler,
        "Euler": EulerDiscreteScheduler.from_config(config, timestep_spacing="linspace"),
        "DDIM": DDIMScheduler.from_config(config, clip_sample=False),
    }
    whole = StableDiffusionPipeline(
        **{**pipeline.components, "scheduler": schedulers[sampler]}, requires_safety_checker=False
    )
    whole.set_progress_bar_config(disable=True)
    expected = draw(whole)
    found = decoded(client.post("/sdapi/v1/txt2img", json={**REQUEST, "sampler_name": sampler}))["images"][0]
    assert expected.std() > 1
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_with_a_control_net(client: httpx.Client, pipeline: Any, controlnet_folder: Path) -> None:
    net = ControlNetModel.from_pretrained(str(controlnet_folder / "canny-tiny"))
    whole = StableDiffusionControlNetPipeline(**pipeline.components, controlnet=net, requires_safety_checker=False)
    whole.set_progress_bar_config(disable=True)
    expected = draw(whole, image=drawing(), controlnet_conditioning_scale=0.8)
    unit = {"image": as_base64(drawing()), "model": "canny-tiny", "weight": 0.8}
    scripts = {"controlnet": {"args": [unit]}}
    request = {**REQUEST, "sampler_name": "PLMS", "alwayson_scripts": scripts}
    found = decoded(client.post("/sdapi/v1/txt2img", json=request))["images"][0]
    assert np.abs(found.astype(int) - expected).max() <= 1
