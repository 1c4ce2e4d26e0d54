"""Which images a step sees, and where each is cut: pure functions of the draws, the same in any order of asking.

Images pass in a new random order every epoch. Steps take the next `batch_size` of that endless sequence, so a batch may
span two epochs and every image is shown equally often.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dreambooth import draws as purposes
from dreambooth.dataset import TrainingImage
from dreambooth.draws import Draws


@dataclass(frozen=True)
class View:
    """A square out of one image: index of the image, top and left edge in pixels, mirrored left to right or not."""

    index: int
    top: int
    left: int
    mirrored: bool


def views(
    draws: Draws, images: Sequence[TrainingImage], edge_px: int, batch_size: int, flip: bool, step: int
) -> tuple[View, ...]:
    """The batch of a step (from 1)."""
    first = (step - 1) * batch_size
    indices = [_index(draws, position, len(images)) for position in range(first, first + batch_size)]
    places = [count for index in indices for count in images[index].num_places(edge_px)]
    corners = draws.integers(step, purposes.CROP, places)
    mirrored = draws.integers(step, purposes.FLIP, [2] * batch_size) if flip else [0] * batch_size
    return tuple(View(index, corners[2 * i], corners[2 * i + 1], bool(mirrored[i])) for i, index in enumerate(indices))


def _index(draws: Draws, position: int, count: int) -> int:
    epoch, place = divmod(position, count)
    return draws.permutation(epoch, count)[place]
