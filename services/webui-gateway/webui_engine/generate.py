"""Drawing a plan: prompts, noise, the denoising loop with control nets, and the VAE.

`engine.py` calls `draw` in the worker thread. Shapes: B images of a batch, C latent channels, h x w latents (pixels / 8).
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from webui_engine import conditioning, controlnet, images, noise, planning
from webui_engine.control_units import Unit
from webui_engine.errors import NotFinite
from webui_engine.pipelines import Loaded, Models
from webui_engine.planning import Plan
from webui_engine.progress import Progress

MAX_DENOISING = 0.999  # A1111: the last step always runs, even at strength 1


@dataclass(frozen=True)
class Drawn:
    """What became of a plan. images: finished ones, fewer if interrupted. maps: what the control nets saw, one per unit."""

    images: list[Image.Image]
    maps: list[Image.Image]
    width: int
    height: int


@dataclass(frozen=True)
class Control:
    """One control net at work; picture is (1, 3, H, W)."""

    unit: Unit
    net: Any
    picture: torch.Tensor


@dataclass(frozen=True)
class Guidance:
    """The embeddings (1, L, D) of both prompts, and what they are weighed with. negative is None at scale 1."""

    positive: torch.Tensor
    negative: torch.Tensor | None
    scale: float


@torch.inference_mode()
def draw(plan: Plan, loaded: Loaded, models: Models, clip_skip: int, progress: Progress) -> Drawn:
    """Draw all batches, or those until an interrupt. Raises ResolutionRefused, RequestInvalid, ModelBroken, StoreDown, NotFinite."""
    width, height = planning.size_for(plan, loaded.model.title, loaded.native_px)
    maps = [controlnet.control_map(unit, width, height) for unit in plan.units]
    controls = [
        Control(
            unit, models.control_net(unit.net, loaded),
            controlnet.as_tensor(control_map, loaded.placement.device, loaded.placement.dtype),
        )
        for unit, control_map in zip(plan.units, maps, strict=True)
    ]  # fmt: skip
    models.merge(loaded, plan.loras)
    guidance = _guidance(plan, loaded, clip_skip)
    start = None if plan.init_image is None else _encode_image(plan, loaded, width, height)
    drawn: list[Image.Image] = []
    for batch in range(plan.n_iter):
        progress.begin_batch(batch, plan.steps, loaded)
        first = batch * plan.batch_size
        chosen = slice(first, first + plan.batch_size)
        shape = (int(loaded.unet.config.in_channels), height // loaded.scale, width // loaded.scale)
        generators = [noise.generator(seed) for seed in plan.seeds[chosen]]
        noises = [
            noise.initial(shape, own, subseed, plan.subseed_strength)
            for own, subseed in zip(generators, plan.subseeds[chosen], strict=True)
        ]
        latents = sample(plan, loaded, guidance, controls, torch.stack(noises), start, generators, progress)
        drawn.extend(_decode(loaded, latents))
        if progress.now.interrupted:
            break
    return Drawn(drawn, maps, width, height)


def _guidance(plan: Plan, loaded: Loaded, clip_skip: int) -> Guidance:
    positive = conditioning.encode(loaded, plan.words, clip_skip)
    negative = conditioning.encode(loaded, plan.negative_prompt, clip_skip) if plan.cfg_scale != 1 else None
    return Guidance(positive, negative, plan.cfg_scale)


def sample(
    plan: Plan, loaded: Loaded, guidance: Guidance, controls: Sequence[Control], noises: torch.Tensor,
    start: torch.Tensor | None, generators: list[torch.Generator], progress: Progress,
) -> torch.Tensor:  # fmt: skip
    """Denoise one batch: noises (B, C, h, w), start (1, C, h, w) -> latents (B, C, h, w). Stopped early, it returns the picture as it is."""
    device, dtype = loaded.placement.device, loaded.placement.dtype
    scheduler = loaded.make_scheduler(plan.choice)
    scheduler.set_timesteps(plan.steps, device=device)
    timesteps = scheduler.timesteps
    noises = noises.to(device, dtype)
    if start is None:
        latents: torch.Tensor = noises * scheduler.init_noise_sigma
    else:
        skipped = _skipped_timesteps(plan, scheduler)
        timesteps = timesteps[skipped:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        latents = scheduler.add_noise(start.expand_as(noises), noises, timesteps[:1])
    arguments = _step_arguments(scheduler, plan, generators)
    for index, timestep in enumerate(timesteps):
        share = index / len(timesteps)
        scaled = scheduler.scale_model_input(latents, timestep).to(dtype)
        predicted = _predict(loaded, guidance, controls, scaled, timestep, share)
        latents = scheduler.step(predicted, timestep, latents, **arguments, return_dict=False)[0].to(dtype)
        clean = _without_noise(scheduler, scaled, predicted, timestep)
        progress.step_done(int((index + 1) / len(timesteps) * plan.steps), clean)
        if progress.should_stop:
            return clean
    return latents


def _skipped_timesteps(plan: Plan, scheduler: Any) -> int:
    """How many timesteps img2img leaves out; A1111 runs int(strength * steps) + 1 steps."""
    strength = plan.denoising_strength if plan.denoising_strength is not None else 1.0
    run = min(int(min(strength, MAX_DENOISING) * plan.steps) + 1, plan.steps)
    return int((plan.steps - run) * scheduler.order)


def _predict(
    loaded: Loaded, guidance: Guidance, controls: Sequence[Control], latents: torch.Tensor, timestep: torch.Tensor,
    share: float,
) -> torch.Tensor:  # fmt: skip
    """The model's prediction (B, C, h, w), guided by both prompts (Ho and Salimans 2022)."""
    active = [control for control in controls if control.unit.start <= share <= control.unit.end]
    positive, negative = guidance.positive, guidance.negative
    if negative is None:
        return _run_unet(loaded, active, latents, timestep, positive)
    if positive.shape == negative.shape:
        both = torch.cat([negative, positive])
        unguided, guided = _run_unet(loaded, active, torch.cat([latents, latents]), timestep, both).chunk(2)
    else:  # prompts of different length cannot share a batch
        unguided = _run_unet(loaded, active, latents, timestep, negative)
        guided = _run_unet(loaded, active, latents, timestep, positive)
    return unguided + guidance.scale * (guided - unguided)


def _run_unet(
    loaded: Loaded, controls: Sequence[Control], latents: torch.Tensor, timestep: torch.Tensor, prompts: torch.Tensor
) -> torch.Tensor:
    """One pass; prompts (P, L, D) are repeated for the batch of P * B latents."""
    prompts = prompts.repeat_interleave(len(latents) // len(prompts), dim=0)
    residuals: dict[str, Any] = {}
    for control in controls:
        picture = control.picture.expand(len(latents), -1, -1, -1)
        down, mid = control.net(
            latents, timestep, encoder_hidden_states=prompts, controlnet_cond=picture,
            conditioning_scale=control.unit.weight, return_dict=False,
        )  # fmt: skip
        if residuals:
            down = [a + b for a, b in zip(residuals["down_block_additional_residuals"], down, strict=True)]
            mid = residuals["mid_block_additional_residual"] + mid
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    result: torch.Tensor = loaded.unet(
        latents, timestep, encoder_hidden_states=prompts, **residuals, return_dict=False
    )[0]  # fmt: skip
    return result


def _step_arguments(scheduler: Any, plan: Plan, generators: list[torch.Generator]) -> dict[str, Any]:
    """What this scheduler's `step` takes beyond the prediction."""
    known = inspect.signature(scheduler.step).parameters
    arguments: dict[str, Any] = {"generator": generators} if "generator" in known else {}
    if plan.eta is not None and "eta" in known:
        arguments["eta"] = plan.eta
    return arguments


def _without_noise(
    scheduler: Any, latents: torch.Tensor, predicted: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """The picture that the model has in mind: x0 from x = sqrt(a) x0 + sqrt(1 - a) noise (Ho et al. 2020, eq. 15)."""
    alphas = scheduler.alphas_cumprod.to(latents.device)
    position = timestep.float().clamp(0, len(alphas) - 1)
    below = position.floor().long()
    alpha = torch.lerp(alphas[below], alphas[(below + 1).clamp(max=len(alphas) - 1)], position - below).to(latents)
    if scheduler.config.prediction_type == "v_prediction":
        return alpha.sqrt() * latents - (1 - alpha).sqrt() * predicted
    return (latents - (1 - alpha).sqrt() * predicted) / alpha.sqrt()


def _encode_image(plan: Plan, loaded: Loaded, width: int, height: int) -> torch.Tensor:
    """The picture to start from as latents (1, C, h, w): the mean of the VAE's distribution, so nothing is random here."""
    assert plan.init_image is not None
    pixels = np.asarray(images.fit(plan.init_image, width, height, plan.crop)).copy()
    scaled = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(loaded.placement.device, torch.float32) / 127.5 - 1
    latents: torch.Tensor = loaded.vae.encode(scaled).latent_dist.mode() * loaded.vae.config.scaling_factor
    return latents.to(loaded.placement.dtype)


def _decode(loaded: Loaded, latents: torch.Tensor) -> list[Image.Image]:
    """Latents (B, C, h, w) -> RGB pictures, one after the other to save memory. Raises NotFinite."""
    pictures = []
    for one in latents.float()[:, None]:
        decoded = loaded.vae.decode(one / loaded.vae.config.scaling_factor, return_dict=False)[0][0]
        if not torch.isfinite(decoded).all():
            raise NotFinite(loaded.model.title, loaded.placement.precision)
        pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        pictures.append(Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()))
    return pictures
