"""Random numbers in the order of diffusers' `train_dreambooth.py` of the tag v0.40.0, for a comparison number by number.

The script draws everything from one stream, so the order of the draws is what has to be equal:
- at the start of an epoch two whole numbers (a base seed for workers that do not exist, and the seed of the order), then
  the order itself from a generator of its own;
- the corners of the next batch before the noise of the present one, since its loader looks one batch ahead;
- in a micro-step the posterior's numbers, the noise, the offset noise if any, the timesteps. The noise is drawn into
  memory of the latents' layout, which is that of the VAE's convolutions, and torch draws other numbers into another layout.
The last batch of an epoch may be smaller, and an accumulation ends with its epoch, though it is divided as if it did not.

The draws depend on nothing that is learnt. So a resumed run draws everything from the beginning again, which takes
milliseconds, and there is no state to save.
"""

from collections.abc import Iterator
from itertools import count

import torch

from dreambooth import batches
from dreambooth.batches import Images, View
from dreambooth.latents import Latents
from dreambooth.parts import Parts
from dreambooth.recipe import CENTER_CROP, Recipe
from dreambooth.sources import Drawn


class ReferenceSource:
    """Draws in the order of the script; steps are asked for in ascending order."""

    def __init__(self, parts: Parts, images: Images, recipe: Recipe, latents: Latents) -> None:
        self._parts = parts
        self._latents = latents
        self._like: dict[int, torch.Tensor] = {}
        self._images = images
        self._recipe = recipe
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self._steps = self._all_steps()
        self._step = 0
        self._shown: list[Drawn] = []

    def num_micro(self, step: int) -> int:
        """The same for every step, those that an epoch's end cuts short too."""
        return self._recipe.gradient_accumulation_steps

    def micro_steps(self, step: int) -> Iterator[Drawn]:
        """The micro-steps of the step; those of skipped steps are drawn and dropped."""
        if step < self._step:
            raise ValueError(f"step {step} was drawn already: the order of the reference has no way back")
        while self._step < step:
            self._shown = next(self._steps)
            self._step += 1
        yield from self._shown

    def filenames(self, step: int) -> tuple[str, ...]:
        """Of the newest step."""
        return tuple(self._images.every[view.index].filename for drawn in self._shown for view in drawn.views)

    def _all_steps(self) -> Iterator[list[Drawn]]:
        for _ in count():
            step: list[Drawn] = []
            for drawn, is_last in self._epoch():
                step.append(drawn)
                if len(step) == self._recipe.gradient_accumulation_steps or is_last:
                    yield step
                    step = []

    def _epoch(self) -> Iterator[tuple[Drawn, bool]]:
        """The micro-steps of one epoch, each with whether it is the last."""
        _ = self._whole_number()
        order = torch.Generator().manual_seed(self._whole_number())
        size = max(self._images.num_instance, self._images.num_class)
        indices = torch.randperm(size, generator=order).tolist()
        slices = [indices[i : i + self._recipe.batch_size] for i in range(0, size, self._recipe.batch_size)]
        ahead = self._views(slices[0])
        for following in slices[1:]:
            views, ahead = ahead, self._views(following)
            yield self._drawn(views), False
        yield self._drawn(ahead), True

    def _views(self, indices: list[int]) -> tuple[View, ...]:
        instance, of_class = [], []
        for index in indices:
            instance.append(self._view(index % self._images.num_instance))
            if self._images.num_class:
                of_class.append(self._view(self._images.num_instance + index % self._images.num_class))
        return (*instance, *of_class)

    def _view(self, index: int) -> View:
        image = self._images.every[index]
        if self._recipe.crop == CENTER_CROP:
            return View(index, *batches.middle(image), mirrored=False)
        rows, columns = image.num_places
        if (rows, columns) == (1, 1):
            return View(index, 0, 0, mirrored=False)
        return View(index, self._below(rows), self._below(columns), mirrored=False)

    def _drawn(self, views: tuple[View, ...]) -> Drawn:
        cut = self._images.every[views[0].index].cut
        shape = self._parts.latent_shape(len(views), *cut)
        latent = torch.randn(shape, generator=self._generator)
        if len(views) not in self._like:
            self._like[len(views)] = self._latents.empty_like(len(views), cut)
        noise = torch.empty_like(self._like[len(views)]).normal_(generator=self._generator)
        if self._recipe.offset_noise:
            constant = torch.randn((*shape[:2], 1, 1), generator=self._generator)
            noise = noise + self._recipe.offset_noise * constant
        timesteps = torch.randint(0, self._parts.num_timesteps, (len(views),), generator=self._generator)
        return Drawn(views, latent, noise, tuple(timesteps.tolist()), (False,) * len(views))

    def _below(self, limit: int) -> int:
        return int(torch.randint(0, limit, (1,), generator=self._generator).item())

    def _whole_number(self) -> int:
        return int(torch.empty((), dtype=torch.int64).random_(generator=self._generator).item())
