"""What the benchmarks of training work on: the tiny model, the example photos as squares, and a store of their own."""

import contextlib
import io
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from artifacts.embedded import EmbeddedStore
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore, StoreConfig
from chassis import config
from dreambooth import case, inputs, loop, memory, parts, recipe, stages, threads
from dreambooth.batches import Images
from dreambooth.dataset import TrainingImage
from dreambooth.examples import Examples
from dreambooth.exits import StopSignal
from dreambooth.latents import Latents
from dreambooth.losses import LossReader
from dreambooth.order import Order
from dreambooth.parts import Parts
from dreambooth.recipe import Recipe
from dreambooth.resume_point import Position
from dreambooth.sources import CounterSource
from dreambooth.state import StageState
from dreambooth.world import World
from PIL import Image

from bench import plain_loop

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "models" / "tiny" / "sd15-tiny"
PROMPT = "a photo of sks creature"
SESSION = "bench"
EDGE_PX = 64
RATE = 2e-6
# The loops are stopped by the benchmarks, not by their step count.
MANY_STEPS = 1_000_000


@dataclass(frozen=True)
class Workshop:
    """store holds the session SESSION with the images in `photos`. scratch: an empty folder."""

    store: ObjectStore
    photos: tuple[Path, ...]
    scratch: Path

    def order(self, run: str, *, joint: bool = False, **changes: Any) -> Order:
        """An order to train the UNet, or both modules together, without the right to write. changes: recipe fields."""
        parsed = recipe_of(f"bench-{run}", joint=joint, **changes)
        scratch = self.scratch / run
        scratch.mkdir()
        found = inputs.gather(self.store, SESSION, parsed, scratch, lambda text: None)
        return Order(
            f"sessions/{SESSION}/runs/{run}", parsed, found, self.store, scratch, World(0, 1, torch.device("cpu"))
        )

    def plain(self, batch_size: int, *, joint: bool = False) -> plain_loop.PlainLoop:
        """The loop to compare with, at the same settings."""
        settings = plain_loop.Settings(
            PROMPT, MANY_STEPS, EDGE_PX, batch_size, learning_rate=RATE, train_text_encoder=joint
        )
        return plain_loop.PlainLoop(BASE, self.photos, settings)


class BareLoop:
    """The trainer's own loop over its real parts, with caches, and nothing around it: no records, no resume points."""

    def __init__(self, model: Parts, recipe: Recipe, shown: Sequence[TrainingImage]) -> None:
        world = World(0, 1, model.device)
        self._stage = stages.of(recipe)[0]
        self._state = StageState(recipe, model, self._stage)
        images = Images(shown, len(shown))
        source = CounterSource(model, images, recipe, self._stage.name, world)
        examples = Examples(model, recipe, images, Latents(model, shown))
        self._material = loop.Material(model, recipe, world, source, examples, cached=True)

    @staticmethod
    def of(order: Order) -> "BareLoop":
        """That of the first stage of an order. Settles torch's threads as the trainer does."""
        stage = stages.of(order.recipe)[0].name
        model = parts.load(order.inputs.base, order.world.device)
        threads.settle(model.device, memory.predict(case.of(order, model)).micro_flops)
        return BareLoop(model, order.recipe, order.inputs.images_of(stage))

    def advance(self, steps: int) -> None:
        """So many updates more."""
        stage = replace(self._stage, num_steps=self._state.step + steps)
        losses = LossReader(lambda facts, loss: None)
        loop.train(stage, self._material, self._state, losses, lambda step: None, StopSignal())

    def save(self, folder: Path) -> None:
        """Write the files of a resume point."""
        self._state.save(folder)

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        """The weights that it changes."""
        model = self._material.parts
        return [weight for name in self._stage.rates for _, weight in stages.trainable(model, name)]

    @property
    def position(self) -> Position:
        """Where it stands."""
        return Position(self._stage.name, 0, self._state.step)


@contextlib.contextmanager
def opened() -> Iterator[Workshop]:
    """A workshop in a bucket of its own, which ends with the block.

    In the store that DARKROOM_S3_ENDPOINT and its credentials name; without them in an S3 server started for it.
    """
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        if os.environ.get("DARKROOM_S3_ENDPOINT"):
            store = ObjectStore(replace(config.read(StoreConfig), bucket=f"darkroom-bench-{secrets.token_hex(6)}"))
            store.ensure_bucket()
            try:
                yield prepare(store, Path(folder))
            finally:
                store.delete_bucket()
        else:
            server = EmbeddedStore(Path(folder) / "store")
            try:
                yield prepare(ObjectStore(server.start()), Path(folder))
            finally:
                server.stop(kill=True)


def prepare(store: ObjectStore, folder: Path) -> Workshop:
    """A workshop in a bucket without the session, and in a local folder."""
    (folder / "scratch").mkdir()
    return Workshop(store, _photos(store, folder / "photos"), folder / "scratch")


def recipe_of(checkpoint: str, *, joint: bool = False, **changes: Any) -> Recipe:
    """The recipe that everything here is measured with: fp32, 64 px, batch 1, constant rate, the UNet or both modules."""
    steps = {"steps": MANY_STEPS, "learning_rate": RATE, "schedule": "constant"}
    no_steps = {**steps, "steps": 0}
    wanted = {
        "base_model": BASE.name,
        "base_model_source": str(BASE),
        "checkpoint": checkpoint,
        "instance_prompt": PROMPT,
        "resolution_px": EDGE_PX,
        "text_encoder": steps if joint else no_steps,
        "unet": no_steps if joint else steps,
        "stages": recipe.THEN_DISCARD if joint else recipe.ONLY_FIRST,
    }
    return recipe.parse(json.dumps(wanted | changes))


def _photos(store: ObjectStore, folder: Path) -> tuple[Path, ...]:
    """The example photos cut to squares, as `darkroom demo` trains on them, in a session and in a folder."""
    sessions = Sessions(store)
    sessions.create(SESSION)
    folder.mkdir()
    made = []
    for file in sorted((ROOT / "examples" / "photos").glob("*.png")):
        content = _square(file)
        sessions.put_image(SESSION, file.name, content)
        made.append(folder / file.name)
        made[-1].write_bytes(content)
    return tuple(made)


def _square(file: Path) -> bytes:
    with Image.open(file) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        cut = image.convert("RGB").crop((left, top, left + side, top + side))
    content = io.BytesIO()
    cut.save(content, "PNG")
    return content.getvalue()
