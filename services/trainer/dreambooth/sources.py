"""Where the random numbers of a step come from: what every micro-step sees, drawn by name.

`CounterSource` is the usual one: every draw is a pure function of its name (see `draws`), so a resumed run asks for
step k and gets what an uninterrupted one would have got. `reference_order` has the other one.
Shapes: B instance views, with prior preservation followed by B class views; N of both. C channels, H x W latent pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from dreambooth import batches
from dreambooth import draws as purposes
from dreambooth.batches import Images, View
from dreambooth.draws import Draws
from dreambooth.parts import Parts
from dreambooth.recipe import Recipe
from dreambooth.world import World


@dataclass(frozen=True)
class Drawn:
    """One micro-step. latent: normal numbers for the posterior's sample, noise: of the forward process, both
    (N, C, H, W) fp32 on the CPU. timesteps: N. dropped: which of the N are shown without their prompt."""

    views: tuple[View, ...]
    latent: torch.Tensor
    noise: torch.Tensor
    timesteps: tuple[int, ...]
    dropped: tuple[bool, ...]


class Source(Protocol):
    """Draws of one stage, for one process."""

    def micro_steps(self, step: int) -> Iterator[Drawn]:
        """The micro-steps of a step (from 1) that are this process's share."""

    def num_micro(self, step: int) -> int:
        """By how many micro-steps the gradient of a step is divided, over this process."""

    def filenames(self, step: int) -> tuple[str, ...]:
        """The images of the step that was asked for last, over all processes in order of their ranks."""


class CounterSource:
    """Every draw by its name; steps may be asked for in any order."""

    def __init__(self, parts: Parts, images: Images, recipe: Recipe, stage: str, world: World) -> None:
        self._parts = parts
        self._images = images
        self._recipe = recipe
        self._draws = Draws(recipe.seed, stage)
        self._world = world

    def num_micro(self, step: int) -> int:
        """The same for every step."""
        return self._recipe.gradient_accumulation_steps

    def micro_steps(self, step: int) -> Iterator[Drawn]:
        """With several processes, every `size`-th from this one's rank on."""
        for micro_step in self._share(self._world.rank):
            yield self._drawn(step, micro_step)

    def filenames(self, step: int) -> tuple[str, ...]:
        """Of any step."""
        order = [micro for rank in range(self._world.size) for micro in self._share(rank)]
        return tuple(self._images.every[view.index].filename for micro in order for view in self._views(step, micro))

    @property
    def _total(self) -> int:
        return self._recipe.gradient_accumulation_steps * self._world.size

    def _share(self, rank: int) -> range:
        return range(rank, self._total, self._world.size)

    def _views(self, step: int, micro: int) -> tuple[View, ...]:
        return batches.views(self._draws, self._images, self._recipe, step, micro, self._total)

    def _drawn(self, step: int, micro: int) -> Drawn:
        draws, recipe, views = self._draws, self._recipe, self._views(step, micro)
        shape = self._parts.latent_shape(len(views), *self._images.every[views[0].index].cut)
        noise = draws.normal(step, purposes.NOISE, shape, micro)
        if recipe.offset_noise:
            noise = noise + recipe.offset_noise * draws.normal(step, purposes.OFFSET, (*shape[:2], 1, 1), micro)
        chance = draws.uniform(step, purposes.DROPOUT, len(views), micro) if recipe.caption_dropout else ()
        return Drawn(
            views=views,
            latent=draws.normal(step, purposes.LATENT, shape, micro),
            noise=noise,
            timesteps=tuple(draws.integers(step, purposes.TIMESTEP, [self._parts.num_timesteps] * len(views), micro)),
            dropped=tuple(number < recipe.caption_dropout for number in chance) or (False,) * len(views),
        )
