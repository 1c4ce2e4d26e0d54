"""The sample images of a run: drawn by the training process, or beside it by the `helper` from a copy of the weights.

Both draw the same pixels. Beside it is drawn only where the helper finds an idle core: on a CPU, if torch computes in one
thread. `work` asks for samples, `resuming` waits for them before it publishes a point.
"""

import functools
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from dreambooth import cores, lora, memory, parts, samples, stages, text
from dreambooth.base_model import BaseModel
from dreambooth.exits import StopSignal
from dreambooth.full_disk import is_full_disk
from dreambooth.helper import Helper
from dreambooth.order import Order
from dreambooth.parts import Parts
from dreambooth.plan import Plan
from dreambooth.recipe import Lora
from dreambooth.stages import Stage
from dreambooth.state import StageState

_MIN_SECONDS: Final = 15.0  # of training: before a third of that no helper has imported torch and loaded the model
_HELPER_BYTES: Final = 700 * 2**20  # that it needs beside the model: libraries, and what comes and goes


@dataclass(frozen=True)
class _Original:
    """What a second copy of the model is made from. modules: those that training changes until samples are drawn."""

    base: BaseModel
    lora: Lora | None
    seed: int
    modules: tuple[str, ...]


class SampleImages:
    """Draws and records the samples of one run. stop: asked between denoising steps in this process."""

    def __init__(self, order: Order, model: Parts, plan: Plan, helper: Helper, stop: StopSignal) -> None:
        self._order = order
        self._model = model
        self._helper = helper
        self._stop = stop
        recipe = order.recipe
        *_, (_, modules) = stages.with_changed(recipe)  # samples belong to the last stage
        self._original = _Original(order.inputs.base, recipe.lora, recipe.seed, modules)
        self._thread = ThreadPoolExecutor(1, "sample-images")
        self._drawing: Future[None] | None = None
        if order.records is not None and _pays(order, model, plan):
            self._drawing = self._thread.submit(helper.call, _prepare, self._original)

    def draw(self, stage: Stage, state: StageState) -> None:
        """The samples of this step, recorded at once or, if the helper has nothing to do, soon. Raises Stopped."""
        if self._order.records is None:
            return
        with state.averages.applied():
            if self._drawing is None or not self._drawing.done() or not self._draw_beside(stage, state):
                pngs = _draw(self._model, self._order.recipe.sample_prompts, *self._settings, self._stop)
                self._record(stage.name, state.step, pngs)

    def draw_missing(self, stage: Stage, state: StageState) -> None:
        """The samples of this step, where a run goes on, if SIGTERM had come while they were drawn."""
        records = self._order.records
        if records is not None:
            numbers = range(len(self._order.recipe.sample_prompts))
            keys = [records.sample_key(stage.name, state.step, number) for number in numbers]
            if not all(self._order.store.exists(key) for key in keys):
                self.draw(stage, state)

    def finish(self) -> None:
        """Wait until everything is recorded that `draw` was called for."""
        if self._drawing is not None:
            self._drawing.result()

    @property
    def _settings(self) -> tuple[int, int, int]:
        return self._order.recipe.seed, self._order.inputs.edge_px, samples.NUM_STEPS

    def _draw_beside(self, stage: Stage, state: StageState) -> bool:
        """Begin it; false if there is no room for a copy of the weights."""
        self.finish()  # done already: raises what went wrong
        folder = Path(tempfile.mkdtemp(prefix=f"sample-{state.step}-", dir=self._order.scratch))
        try:
            state.write_weights(folder)
        except OSError as error:
            shutil.rmtree(folder)
            if not is_full_disk(error):
                raise
            return False
        self._drawing = self._thread.submit(self._ask, stage.name, state.step, folder)
        return True

    def _ask(self, stage: str, step: int, folder: Path) -> None:
        try:
            prompts = self._order.recipe.sample_prompts
            pngs = self._helper.call(_draw_copy, self._original, folder, prompts, *self._settings)
        finally:
            shutil.rmtree(folder)
        self._record(stage, step, pngs)

    def _record(self, stage: str, step: int, pngs: Sequence[bytes]) -> None:
        assert self._order.records is not None
        for number, (prompt, png) in enumerate(zip(self._order.recipe.sample_prompts, pngs, strict=True)):
            self._order.records.sample(stage, step, number, prompt, png)


def _pays(order: Order, model: Parts, plan: Plan) -> bool:
    """Whether the helper can draw while training goes on, instead of slowing it down."""
    recipe = order.recipe
    is_asked_for = bool(recipe.sample_prompts) and recipe.sample_every_steps > 0
    has_idle_core = (
        model.device.type == "cpu" and torch.get_num_threads() == 1 < cores.count() and order.world.size == 1
    )
    needed_bytes = memory.loaded_bytes(model) + _HELPER_BYTES
    has_room = plan.available_bytes - plan.memory_bytes > needed_bytes
    return is_asked_for and has_idle_core and has_room and (plan.seconds or 0) >= _MIN_SECONDS


def _draw(
    model: Parts, prompts: Sequence[str], seed: int, edge_px: int, num_steps: int, stop: StopSignal
) -> list[bytes]:
    """A PNG for each prompt, of the weights as they are now."""
    states = text.FrozenStates(model)
    return [
        samples.draw(model, states, prompt, number, seed, edge_px, num_steps, stop)
        for number, prompt in enumerate(prompts)
    ]


def _draw_copy(
    original: _Original,
    folder: Path,
    prompts: Sequence[str],
    seed: int,
    edge_px: int,
    num_steps: int,
) -> list[bytes]:
    """The same of the weights in a folder."""
    model = _copy_of(original)
    StageState.load_weights(model, original.modules, folder)
    return _draw(model, prompts, seed, edge_px, num_steps, StopSignal())


@functools.lru_cache(maxsize=1)
def _copy_of(original: _Original) -> Parts:
    torch.set_num_threads(1)  # as in the training process: the number is part of what makes pixels equal
    model = parts.load(original.base, torch.device("cpu"))
    if original.lora:
        lora.attach(model, original.lora, original.seed)
    return model


def _prepare(original: _Original) -> None:
    """Load what is slow to load."""
    _copy_of(original)
