"""The training loop of one stage, top to bottom.

Shapes: B images, C latent channels, H x W latent pixels, T tokens, D text channels.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from dreambooth import batches, loss, stages, text
from dreambooth import draws as purposes
from dreambooth.dataset import TrainingImage
from dreambooth.draws import Draws
from dreambooth.exits import StopSignal
from dreambooth.latents import Latents
from dreambooth.losses import LossReader
from dreambooth.optimizer import Optimizer
from dreambooth.parts import Parts
from dreambooth.progress import StepFacts
from dreambooth.recipe import Recipe
from dreambooth.stages import Stage


@dataclass(frozen=True)
class Material:
    """What both stages work on."""

    parts: Parts
    recipe: Recipe
    images: Sequence[TrainingImage]
    latents: Latents
    edge_px: int


@dataclass(frozen=True)
class Example:
    """One batch as the UNet sees it: noisy latents and the wanted prediction (B, C, H, W), timesteps (B,)."""

    noisy: torch.Tensor
    wanted: torch.Tensor
    timesteps: torch.Tensor


def train(
    stage: Stage,
    material: Material,
    report: Callable[[StepFacts, float], None],
    after_step: Callable[[Stage, int], None],
    stop: StopSignal,
) -> None:
    """Train the stage's module in place.

    report gets every step's loss, on a GPU a few steps late. after_step is called between two steps.
    Raises Stopped, Diverged.
    """
    parts, recipe = material.parts, material.recipe
    draws = Draws(recipe.seed, stage.name)
    module = stages.open_for_training(parts, stage)
    optimizer = Optimizer(module)
    context_of = _trained_states(parts) if stage.trains_text_encoder else text.FrozenStates(parts).of
    losses = LossReader(report)
    for step in range(1, stage.num_steps + 1):
        stop.check()
        shown = batches.views(draws, material.images, material.edge_px, recipe.batch_size, recipe.flip, step)
        batch = [material.images[view.index] for view in shown]
        example = make_example(material, draws, shown, step)
        with _autocast(recipe.precision, parts.device):
            context = context_of([image.prompt for image in batch])  # (B, T, D)
            prediction = parts.unet(example.noisy, example.timesteps, context, return_dict=False)[0]
        step_loss = loss.mean_squared_error(prediction, example.wanted)
        step_loss.backward()  # type: ignore[no-untyped-call]
        optimizer.update(stage.rate(step))
        filenames = tuple(image.filename for image in batch)
        losses.add(StepFacts(stage.name, step, stage.num_steps, stage.rate(step), filenames), step_loss)
        after_step(stage, step)
    losses.finish()
    stages.close(module)


def make_example(material: Material, draws: Draws, shown: Sequence[batches.View], step: int) -> Example:
    """Latents, noise and timesteps of one step: the same for a step whatever happened before it."""
    parts = material.parts
    shape = parts.latent_shape(len(shown), material.edge_px)
    latents = material.latents.sample(shown, draws.normal(step, purposes.LATENT, shape).to(parts.device))
    noise = draws.normal(step, purposes.NOISE, shape).to(parts.device)
    chosen = draws.integers(step, purposes.TIMESTEP, [parts.num_timesteps] * len(shown))
    timesteps = torch.tensor(chosen, device=parts.device)
    schedule = parts.alphas_cumprod
    return Example(
        noisy=loss.noisy(latents, noise, schedule, timesteps),
        wanted=loss.target(parts.prediction_type, latents, noise, schedule, timesteps),
        timesteps=timesteps,
    )


def _trained_states(parts: Parts) -> Callable[[Sequence[str]], torch.Tensor]:
    """Text states with gradients; prompts are tokenized once."""
    known: dict[str, torch.Tensor] = {}

    def context_of(prompts: Sequence[str]) -> torch.Tensor:
        for prompt in prompts:
            if prompt not in known:
                known[prompt] = text.token_ids(parts, [prompt])
        return text.states(parts, torch.cat([known[prompt] for prompt in prompts]))

    return context_of


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
