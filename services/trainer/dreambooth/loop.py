"""The training loop of one stage, top to bottom.

Shapes: N pictures of a micro-step, C latent channels, H x W latent pixels, T tokens, D text channels.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dreambooth import loss, micro_step
from dreambooth.errors import Diverged
from dreambooth.examples import Contexts, Example, Examples
from dreambooth.exits import StopSignal
from dreambooth.losses import LossReader
from dreambooth.parts import Parts
from dreambooth.progress import StepFacts
from dreambooth.recipe import Recipe
from dreambooth.sources import Source
from dreambooth.stages import Stage
from dreambooth.state import StageState
from dreambooth.world import World

_MOST_SCALES = 64  # fp16 gradients that overflow at every scale down to 2^-48 are not finite at all


@dataclass(frozen=True)
class Material:
    """What a stage works on. cached: text states of a frozen text encoder are kept."""

    parts: Parts
    recipe: Recipe
    world: World
    source: Source
    examples: Examples
    cached: bool


def train(
    stage: Stage,
    material: Material,
    state: StageState,
    losses: LossReader,
    after_step: Callable[[int], None],
    stop: StopSignal,
) -> None:
    """Train the stage's modules in place, from the step after `state.step` on.

    losses gets every step's loss. after_step is called between two steps, when `state` is complete. Raises Stopped
    (`state` is then that of the last whole step), Diverged.
    """
    contexts = Contexts(material.parts, stage, cached=material.cached)
    while state.step < stage.num_steps:
        step = state.step + 1
        began = time.monotonic()
        for _ in range(_MOST_SCALES):
            outcome = _gradients(stage, material, contexts, state, step, stop)
            rates = {name: rates.at(step) for name, rates in stage.rates.items()}
            if state.optimizer.update(rates):
                break
        else:
            raise Diverged(f"{stage.name} step {step}: the fp16 gradients overflow at every scale; use bf16 or fp32")
        state.advance()
        seconds = time.monotonic() - began
        shown = material.source.filenames(step)
        facts = StepFacts(stage.name, step, stage.num_steps, rates, shown, seconds, outcome.wait_seconds)
        losses.add(facts, outcome.loss, outcome.of_each, state.optimizer.gradient_norm)
        after_step(step)
    losses.finish()


@dataclass(frozen=True)
class _Outcome:
    """loss: mean over all micro-steps and processes. of_each: of the pictures of all processes."""

    loss: torch.Tensor
    of_each: torch.Tensor
    wait_seconds: float


def _gradients(
    stage: Stage, material: Material, contexts: Contexts, state: StageState, step: int, stop: StopSignal
) -> _Outcome:
    """Leave the gradients of a step in the weights, averaged over its micro-steps and over the processes."""
    world, num_micro = material.world, material.source.num_micro(step)
    total: list[torch.Tensor] = []
    of_each: list[torch.Tensor] = []
    waited = 0.0
    for drawn in material.source.micro_steps(step):
        _check(world, stop, state)
        began = time.monotonic()
        example = material.examples.make(drawn)
        waited += time.monotonic() - began
        prediction = _predict(material, contexts, example)
        prior = material.recipe.prior_preservation
        value = loss.of_batch(prediction, example.wanted, example.weights, prior.weight if prior else None)
        state.optimizer.backward(value / num_micro)
        total.append(value.detach())
        of_each.append(loss.of_each(prediction.detach(), example.wanted))
    mean = torch.stack(total).mean() if len(total) > 1 else total[0]
    world.average([*state.optimizer.gradients(), mean])
    return _Outcome(mean, world.gather(torch.cat(of_each)), waited)


def _predict(material: Material, contexts: Contexts, example: Example) -> torch.Tensor:
    with micro_step.autocast(material.recipe.precision, material.parts.device):
        context = contexts.of(example.prompts)  # (N, T, D)
        predicted: torch.Tensor = material.parts.unet(example.noisy, example.timesteps, context, return_dict=False)[0]
    return predicted


def _check(world: World, stop: StopSignal, state: StageState) -> None:
    """Stop all processes at the same place; gradients of a step that is not finished are of no use."""
    if world.any(stop.is_set()):
        state.optimizer.drop_gradients()
        stop.set_by_partner()
        stop.check()
