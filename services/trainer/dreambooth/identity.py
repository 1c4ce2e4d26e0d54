"""What a run's numbers depend on beside its state: a resume point keeps it, and a run that goes on compares.

Two kinds: what somebody may have changed (images, captions, base model, recipe, library versions), which is refused; and
what the machine is (processor, threads, GPU), where equal numbers are not to be had and the run goes on, marked inexact.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import torch

from dreambooth import digests
from dreambooth.dataset import TrainingImage
from dreambooth.errors import ResumePointUnusable
from dreambooth.inputs import Inputs
from dreambooth.recipe import Recipe
from dreambooth.world import World

_LIBRARY: Final = "library "
_LIBRARIES: Final = (
    "torch",
    "diffusers",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "numpy",
    "pillow",
    "bitsandbytes",
    "prodigyopt",
)
# Fields of the recipe that no trained number depends on.
_FREE: Final = (
    "sample_prompts",
    "sample_every_steps",
    "resume_point_every_steps",
    "resume_point_every_minutes",
    "keep_resume_points",
    "require_captions",
)


def of(
    recipe: Recipe, inputs: Inputs, class_images: Mapping[int, Sequence[TrainingImage]], world: World
) -> dict[str, Any]:
    """A flat JSON object in two parts, "fixed" and "machine".."""
    images = next(iter(inputs.images.values()))
    fixed: dict[str, str] = {f"{_LIBRARY}{name}": version(name) for name in _LIBRARIES}
    fixed |= {f"image {image.filename}": image.sha256 for image in images}
    fixed |= {f"prompt of {image.filename}": image.prompt for image in images}
    fixed |= {f"class image {image.filename}": image.sha256 for made in class_images.values() for image in made}
    fixed |= {f"base model {path}": digests.of_file(inputs.base.folder / path) for path in inputs.base.weights}
    fixed |= {f"recipe {name}": repr(value) for name, value in recipe.record().items() if name not in _FREE}
    fixed["processes"] = str(world.size)
    return {"fixed": fixed, "machine": _machine(world)}


def require_equal(mine: Mapping[str, Any], world: World) -> None:
    """Make sure that all processes train on the same: machines may hold other files under the same path.

    Raises ResumePointUnusable in those that differ from the one that writes.
    """
    if changed := differences(world.once(lambda: mine)["fixed"], mine["fixed"]):
        raise ResumePointUnusable(
            f"process {world.rank} of this run has not what the one that writes has: {'; '.join(changed[:20])}; "
            "give all machines the same files and image"
        )


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """One sentence for each thing that changed. A library that `before` does not name is none: older programs compared fewer."""
    found = []
    for name in sorted({*before, *now}):
        if name not in now:
            found.append(f"{name} is gone")
        elif name not in before:
            if not name.startswith(_LIBRARY):
                found.append(f"{name} is new")
        elif before[name] != now[name]:
            found.append(f"{name} was {_short(before[name])}, is {_short(now[name])}")
    return found


def _machine(world: World) -> dict[str, str]:
    if world.device.type == "cuda":
        return {"device": torch.cuda.get_device_name(world.device)}
    return {
        "device": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
    }


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:16]}… ({len(text)} characters)"
