"""The stages of a run one after the other, from the beginning or from a resume point.

`training` makes one `Work` and calls `train`.
"""

import time
from collections.abc import Mapping, Sequence

from dreambooth import loop, lora, parts, stages
from dreambooth.batches import Images
from dreambooth.dataset import TrainingImage
from dreambooth.errors import Stopped
from dreambooth.examples import Examples
from dreambooth.exits import StopSignal
from dreambooth.latents import Latents
from dreambooth.losses import LossReader
from dreambooth.order import Order
from dreambooth.parts import Parts
from dreambooth.plan import Plan
from dreambooth.progress import Progress, StepFacts
from dreambooth.recipe import UNET, Recipe
from dreambooth.reference_order import ReferenceSource
from dreambooth.resume_point import Position
from dreambooth.resuming import Resuming
from dreambooth.sample_images import SampleImages
from dreambooth.sources import CounterSource, Source
from dreambooth.stages import Stage
from dreambooth.state import StageState

ClassImages = Mapping[int, Sequence[TrainingImage]]


class Work:
    """All stages of one run. class_images: by edge in pixels, empty without prior preservation."""

    def __init__(
        self,
        order: Order,
        model: Parts,
        class_images: ClassImages,
        resuming: Resuming,
        sample_images: SampleImages,
        plan: Plan,
        stop: StopSignal,
    ) -> None:
        self._order = order
        self._model = model
        self._class_images = class_images
        self._resuming = resuming
        self._sample_images = sample_images
        self._stop = stop
        self._stages = stages.of(order.recipe)
        per_step = order.recipe.batch_size * order.recipe.gradient_accumulation_steps * order.world.size
        after = {s.name: sum(later.num_steps for later in self._stages[i + 1 :]) for i, s in enumerate(self._stages)}
        self.progress = Progress(per_step, after, time.monotonic, plan.flops_share)

    def train(self) -> StageState:
        """Every stage that is not behind the resume point. Raises Stopped (a resume point is saved), Diverged."""
        found = self._resuming.found
        if found:
            self.progress.restore(found.about["progress"])
        state: StageState | None = None
        for index, stage in enumerate(self._stages):
            state = StageState(self._order.recipe, self._model, stage, state)
            if found and index == found.position.stage_index:
                state.load(self._resuming.folder, found.position.step)
            if not found or index >= found.position.stage_index:
                self._train_stage(index, stage, state)
            self._leave(stage, state)
        assert state is not None  # a recipe without steps is refused
        return state

    def _train_stage(self, index: int, stage: Stage, state: StageState) -> None:
        order = self._order
        begins = f"training the {stage.name.replace('_', ' ')}: {stage.num_steps} steps"
        order.message(f"{begins}, {state.step} of them done" if state.step else begins)
        self.progress.enter(stage.name)
        losses = LossReader(self._report)
        is_last = stage is self._stages[-1]

        def save() -> None:
            losses.finish()
            position = Position(stage.name, index, state.step)
            resume = self.progress.pause()
            self._resuming.save(position, self.progress.state(), state.save)
            resume()

        def after_step(step: int) -> None:
            self._resuming.check()
            if is_sample_due(order.recipe, stage, step, is_last_stage=is_last):
                resume = self.progress.pause()
                self._sample_images.draw(stage, state)
                resume()
            if step == stage.num_steps or self._resuming.is_due(step):
                save()

        try:
            if is_sample_due(order.recipe, stage, state.step, is_last_stage=is_last):
                self._sample_images.draw_missing(stage, state)
            loop.train(stage, self._material(stage), state, losses, after_step, self._stop)
        except Stopped:
            save()
            raise

    def _leave(self, stage: Stage, state: StageState) -> None:
        stages.close(self._model)
        if stage.discards_unet:
            recipe, base = self._order.recipe, self._order.inputs.base
            if recipe.lora:
                lora.reset(self._model, UNET, recipe.seed)
            else:
                parts.reset_unet(self._model, base)
            state.forget(UNET)

    def _material(self, stage: Stage) -> loop.Material:
        order, model, recipe = self._order, self._model, self._order.recipe
        instance = order.inputs.images_of(stage.name)
        of_class = self._class_images.get(order.inputs.edges_px[stage.name], ())
        images = Images((*instance, *of_class), len(instance))
        # The reference encodes every batch as a whole, and so do comparisons with it.
        cached = not recipe.reference_order
        latents = Latents(model, images.every, cached=cached)
        source: Source = CounterSource(model, images, recipe, stage.name, order.world)
        if recipe.reference_order:
            source = ReferenceSource(model, images, recipe, latents)
        examples = Examples(model, recipe, images, latents)
        if recipe.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
        return loop.Material(model, recipe, order.world, source, examples, cached)

    def _report(self, facts: StepFacts, loss: float) -> None:
        record = self.progress.record(facts, loss)
        if self._order.records:
            self._order.records.add(record)


def is_sample_due(recipe: Recipe, stage: Stage, step: int, *, is_last_stage: bool) -> bool:
    """Whether sample images follow this step: every so many steps of the UNet stage, and at the end of the run."""
    at_end = is_last_stage and step == stage.num_steps
    every = recipe.sample_every_steps
    return at_end or (stage.name == UNET and every > 0 and step > 0 and step % every == 0)
