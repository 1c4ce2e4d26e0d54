"""One run from its order to its checkpoint: the table of contents of this program.

`__main__` calls `run`. Everything slow to import is imported here, after the order was found to be good.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore

from dreambooth import loop, parts, plan, publish, samples, stages, text
from dreambooth.exits import StopSignal
from dreambooth.inputs import Inputs
from dreambooth.latents import Latents
from dreambooth.progress import Progress, StepFacts
from dreambooth.recipe import UNET, Recipe
from dreambooth.records import Records
from dreambooth.stages import Stage


@dataclass(frozen=True)
class Order:
    """What to do, with what and where. run: "sessions/<session>/runs/<run>". scratch: a local folder to write in."""

    run: str
    recipe: Recipe
    inputs: Inputs
    store: ObjectStore
    scratch: Path


def run(order: Order, records: Records, stop: StopSignal) -> None:
    """Train and publish. Raises RunFailed and ArtifactError; `exits` knows what they mean."""
    began = time.monotonic()
    recipe, inputs = order.recipe, order.inputs
    model = parts.load(inputs.base, parts.device())
    _announce(order, model, records)
    latents = Latents(model, inputs.images, inputs.edge_px)
    material = loop.Material(model, recipe, inputs.images, latents, inputs.edge_px)
    progress = _train(order, material, records, stop)
    metrics = publish.stage_metrics(progress.first_loss, progress.last_loss, progress.smoothed_loss)
    metrics |= {"images": len(inputs.images), "steps": recipe.num_steps, "seconds": round(time.monotonic() - began, 1)}
    origin = publish.Origin(recipe, inputs.base, order.run, inputs.edge_px)
    publish.publish(Checkpoints(order.store), origin, model, metrics, order.scratch, stop)


def _train(order: Order, material: loop.Material, records: Records, stop: StopSignal) -> Progress:
    to_do = stages.of(order.recipe)
    after = {stage.name: sum(later.num_steps for later in to_do[i + 1 :]) for i, stage in enumerate(to_do)}
    progress = Progress(order.recipe.batch_size, after, time.monotonic)

    def report(facts: StepFacts, loss: float) -> None:
        records.add(progress.record(facts, loss))

    def after_step(stage: Stage, step: int) -> None:
        if is_sample_due(order.recipe, stage, step, is_last_stage=after[stage.name] == 0):
            resume = progress.pause()
            _sample(order, material, records, stage, step, stop)
            resume()

    for stage in to_do:
        records.message(f"training the {stage.name.replace('_', ' ')}: {stage.num_steps} steps")
        progress.enter(stage.name)
        loop.train(stage, material, report, after_step, stop)
    return progress


def is_sample_due(recipe: Recipe, stage: Stage, step: int, *, is_last_stage: bool) -> bool:
    """Whether sample images follow this step: every so many steps of the UNet stage, and at the end of the run."""
    at_end = is_last_stage and step == stage.num_steps
    every = recipe.sample_every_steps
    return at_end or (stage.name == UNET and every > 0 and step % every == 0)


def _sample(order: Order, material: loop.Material, records: Records, stage: Stage, step: int, stop: StopSignal) -> None:
    states = text.FrozenStates(material.parts)
    for number, prompt in enumerate(order.recipe.sample_prompts):
        png = samples.draw(material.parts, states, prompt, number, order.recipe.seed, material.edge_px, stop)
        records.sample(stage.name, step, number, prompt, png)


def _announce(order: Order, model: parts.Parts, records: Records) -> None:
    images = order.inputs.images
    intended = plan.make(order.recipe, order.inputs, model)
    for sentence in intended.sentences:
        records.message(sentence)
    if intended.is_tight:
        records.message("the memory may not be enough: lower the batch size or the resolution", "warning")
    prompts = [image.prompt for image in images] + list(order.recipe.sample_prompts)
    text.warn_about_length(model, prompts, lambda sentence: records.message(sentence, "warning"))
    for prompt in dict.fromkeys(image.prompt for image in images):
        records.message(f"prompt: {prompt}")
