"""Sample images: what the model draws for fixed prompts from fixed noise, to be compared from step to step.

`class_images` draws in the same way.

Nothing here touches the numbers of training: the noise has its own name among the draws, no module state changes, and
no gradient is kept.
"""

import io

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from PIL import Image

from dreambooth import draws, text
from dreambooth.exits import StopSignal
from dreambooth.parts import Parts

# As many as show what a model has learned: training waits for them. More change details alone.
NUM_STEPS = 10
GUIDANCE_SCALE = 5.0


def draw(
    parts: Parts,
    states: text.FrozenStates,
    prompt: str,
    number: int,
    seed: int,
    edge_px: int,
    num_steps: int,
    stop: StopSignal,
    purpose: str = draws.SAMPLE,
) -> bytes:
    """One PNG by DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095) in so many denoising steps, with classifier-free guidance.

    number: which of the sample prompts or class images this is; with the seed and the purpose it fixes the noise.
    Raises Stopped between two denoising steps.
    """
    scheduler = DPMSolverMultistepScheduler.from_config(parts.scheduler_config)
    scheduler.set_timesteps(num_steps)
    noise = draws.Draws(seed, purpose).normal(number, draws.NOISE, parts.latent_shape(1, edge_px))
    latents = noise.to(parts.device) * scheduler.init_noise_sigma
    context = states.of(["", prompt])
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            stop.check()
            both = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
            without, with_prompt = parts.unet(both, timestep, context, return_dict=False)[0].float().chunk(2)
            guided = without + GUIDANCE_SCALE * (with_prompt - without)
            latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
        picture = parts.vae.decode(latents / parts.scaling_factor, return_dict=False)[0]
    return _png(picture[0])


def _png(picture: torch.Tensor) -> bytes:
    levels = ((picture.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()
