"""Class images for prior preservation: what the base model draws for the class prompt, generated once and kept.

    sessions/<session>/class_images/<12 digits>/<number, 5 digits>.png    numbers from 1
    sessions/<session>/class_images/<12 digits>/about.json                what they show, for people

The folder is named by all that the pictures depend on: prompt, weights of the base, its resolution, sampler. Picture
number N has its noise by that number alone, so it is the same whoever draws it and in which order (on the same kind of
device), and the runs of a session share them. Every picture is put whole: a run that was killed goes on with those that
are missing.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from dreambooth import dataset, digests, draws, samples, text
from dreambooth.dataset import TrainingImage
from dreambooth.errors import PictureInvalid, Stopped
from dreambooth.exits import StopSignal
from dreambooth.order import Order
from dreambooth.parts import Parts
from dreambooth.pixel_file import PixelFile
from dreambooth.recipe import PriorPreservation
from dreambooth.watch import Watch

# They are trained on: more than a sample image has, which only shows something.
NUM_STEPS = 20
_NOISE_SEED: Final = 0  # not the recipe's: another seed trains on the same class images
_FOLDER_DIGITS: Final = 12
_TOLD_EVERY: Final = 10


def ensure(order: Order, model: Parts, stop: StopSignal) -> Mapping[int, Sequence[TrainingImage]]:
    """All class images of the recipe by edge in pixels; those that are missing are drawn first, by all processes.

    `model` must be the base, untrained. Empty without prior preservation. Raises Stopped, and PictureInvalid for images
    in the bucket that cannot be read.
    """
    prior = order.recipe.prior_preservation
    if prior is None:
        return {}
    text.warn_about_length(model, [prior.class_prompt], lambda said: order.message(said, "warning"))
    about = _about(order, prior)
    folder = f"class_images/{_name(about)}/"
    with suppress(Stopped):  # the other processes must hear of it: all leave below
        _draw_missing(order, model, prior, about, folder, stop)
    if order.world.any(stop.is_set()):
        stop.set_by_partner()
        stop.check()
    return order.world.once_a_machine("class-images", lambda: _load(order, prior, folder, stop))


def _about(order: Order, prior: PriorPreservation) -> dict[str, Any]:
    base = order.inputs.base
    return {
        "prompt": prior.class_prompt,
        "base_model": base.name,
        "size_px": base.resolution_px,
        "sampler": "DPM-Solver++",
        "steps": NUM_STEPS,
        "guidance_scale": samples.GUIDANCE_SCALE,
        "noise_seed": _NOISE_SEED,
        "base_sha256": {path: digests.of_file(base.folder / path) for path in base.weights},
    }


def _name(about: Mapping[str, Any]) -> str:
    # A base model is its files: the registry may give them another name.
    settings = {name: value for name, value in about.items() if name != "base_model"}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:_FOLDER_DIGITS]


def _draw_missing(
    order: Order, model: Parts, prior: PriorPreservation, about: Mapping[str, Any], folder: str, stop: StopSignal
) -> None:
    """This process's share of them: every `size`-th number."""
    prefix, world, total = _session(order) + folder, order.world, prior.num_class_images
    there = {found.key.removeprefix(prefix) for found in order.store.list(prefix)}
    if world.writes and "about.json" not in there:
        order.store.put(
            f"{prefix}about.json", json.dumps(about, indent=2, ensure_ascii=False).encode(), "application/json"
        )
    missing = [number for number in range(1, total + 1) if _file(number) not in there]
    share = [number for number in missing if number % world.size == world.rank]
    order.message(f"class images: {total - len(missing)} of {total} are there" + _intent(missing, about))
    states, began = text.FrozenStates(model), time.monotonic()
    for made, number in enumerate(share, 1):
        edge_px, purpose = about["size_px"], draws.CLASS_IMAGE
        png = samples.draw(model, states, prior.class_prompt, number, _NOISE_SEED, edge_px, NUM_STEPS, stop, purpose)
        order.store.put(f"{prefix}{_file(number)}", png, "image/png")
        if made % _TOLD_EVERY == 0 or made == len(share):
            done = total - max(0, len(missing) - made * world.size)  # the other processes are about as far
            seconds = (time.monotonic() - began) / made * (len(share) - made)
            order.message(f"class images: {done} of {total}" + (f", {seconds:.0f} seconds to go" if seconds else ""))


def _intent(missing: Sequence[int], about: Mapping[str, Any]) -> str:
    return f"; drawing {len(missing)} at {about['size_px']} px: {about['prompt']}" if missing else ""


def _load(
    order: Order, prior: PriorPreservation, folder: str, stop: StopSignal
) -> Mapping[int, tuple[TrainingImage, ...]]:
    edges_px = sorted(set(order.inputs.edges_px.values()))
    files = {edge_px: PixelFile(order.scratch / f"class-pixels-{edge_px}.bin") for edge_px in edges_px}

    def load_one(number: int) -> Mapping[int, TrainingImage] | str:
        filename = f"{folder}{_file(number)}"
        content = order.store.get(_session(order) + filename)
        try:
            return {
                edge_px: dataset.prepare(filename, prior.class_prompt, content, edge_px, file)
                for edge_px, file in files.items()
            }
        except PictureInvalid as error:
            return f"{_session(order)}{error}; or delete it: it is drawn again"

    outcomes = Watch(order.message, stop).each(load_one, range(1, prior.num_class_images + 1), "fetching class images")
    if problems := [outcome for outcome in outcomes if isinstance(outcome, str)]:
        raise PictureInvalid(tuple(problems))
    loaded = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    return {edge_px: tuple(sizes[edge_px] for sizes in loaded) for edge_px in edges_px}


def _session(order: Order) -> str:
    _, session, *_ = order.run.split("/")
    return f"sessions/{session}/"


def _file(number: int) -> str:
    return f"{number:05d}.png"
