"""Which images a micro-step sees, and where each is cut: pure functions of the draws, the same in any order of asking.

Images pass in a new random order every epoch. Micro-steps take the next `batch_size` of that endless sequence, so a batch
may span two epochs and every image is shown equally often. Where images have several shapes (aspect buckets), a batch
comes from one bucket: an epoch is every bucket's images in batches, the last one of a bucket filled up from its
beginning, and the batches in random order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dreambooth import draws as purposes
from dreambooth.dataset import TrainingImage
from dreambooth.draws import Draws
from dreambooth.recipe import CENTER_CROP, Recipe


@dataclass(frozen=True)
class View:
    """What is shown of one image: its index, top and left edge in pixels, mirrored left to right or not."""

    index: int
    top: int
    left: int
    mirrored: bool


@dataclass(frozen=True)
class Images:
    """The training images of a stage: instance images first, then the class images, if any."""

    every: Sequence[TrainingImage]
    num_instance: int

    @property
    def num_class(self) -> int:
        """Class images; 0 without prior preservation."""
        return len(self.every) - self.num_instance

    @cached_property
    def buckets(self) -> list[list[int]]:
        """Indices of the instance images of each shape; every micro-step asks."""
        found: dict[tuple[int, int], list[int]] = {}
        for index in range(self.num_instance):
            found.setdefault(self.every[index].cut, []).append(index)
        return [found[shape] for shape in sorted(found)]


def views(draws: Draws, images: Images, recipe: Recipe, step: int, micro_step: int, num_micro: int) -> tuple[View, ...]:
    """The batch of a micro-step (from 0) of a step (from 1) that has `num_micro`: instance views, then class views."""
    batch = (step - 1) * num_micro + micro_step
    indices = _instances(draws, images, recipe.batch_size, batch)
    if images.num_class:
        first = batch * recipe.batch_size
        indices += [
            images.num_instance + _next(draws, purposes.CLASS_ORDER, position, images.num_class)
            for position in range(first, first + recipe.batch_size)
        ]
    mirrored = (
        draws.integers(step, purposes.FLIP, [2] * len(indices), micro_step) if recipe.flip else [0] * len(indices)
    )
    corners = _corners(draws, [images.every[index] for index in indices], recipe.crop, step, micro_step)
    return tuple(
        View(index, top, left, bool(flip)) for index, (top, left), flip in zip(indices, corners, mirrored, strict=True)
    )


def middle(image: TrainingImage) -> tuple[int, int]:
    """Top and left edge of the cut in the middle, rounded as torchvision's CenterCrop does."""
    rows, columns = image.num_places
    return round((rows - 1) / 2), round((columns - 1) / 2)


def _corners(
    draws: Draws, shown: Sequence[TrainingImage], crop: str, step: int, micro_step: int
) -> list[tuple[int, int]]:
    if crop == CENTER_CROP:
        return [middle(image) for image in shown]
    places = [count for image in shown for count in image.num_places]
    drawn = draws.integers(step, purposes.CROP, places, micro_step)
    return list(zip(drawn[::2], drawn[1::2], strict=True))


def _instances(draws: Draws, images: Images, batch_size: int, batch: int) -> list[int]:
    buckets = images.buckets
    if len(buckets) == 1:
        first = batch * batch_size
        return [
            _next(draws, purposes.ORDER, position, images.num_instance) for position in range(first, first + batch_size)
        ]
    counts = [-(-len(bucket) // batch_size) for bucket in buckets]
    epoch, place = divmod(batch, sum(counts))
    chosen = draws.permutation(epoch, sum(counts), purposes.BUCKET_ORDER)[place]
    for number, (bucket, count) in enumerate(zip(buckets, counts, strict=True)):
        if chosen < count:
            order = draws.permutation(epoch, len(bucket), f"{purposes.ORDER}-{number}")
            first = chosen * batch_size
            return [bucket[order[place % len(bucket)]] for place in range(first, first + batch_size)]
        chosen -= count
    raise AssertionError("a batch is in one of the buckets")


def _next(draws: Draws, purpose: str, position: int, count: int) -> int:
    epoch, place = divmod(position, count)
    return draws.permutation(epoch, count, purpose)[place]
