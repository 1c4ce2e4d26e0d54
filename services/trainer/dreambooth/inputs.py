"""Everything a run needs from outside, fetched and checked before torch is imported: a wrong input ends in a second.

`__main__` gathers, `training` works on the result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from artifacts.sessions import Sessions
from artifacts.store import ObjectStore

from dreambooth import base_model, dataset
from dreambooth.base_model import BaseModel
from dreambooth.dataset import TrainingImage
from dreambooth.errors import PictureInvalid
from dreambooth.recipe import Recipe


@dataclass(frozen=True)
class Inputs:
    """The checked base model and images, and the edge of the training square in pixels."""

    base: BaseModel
    images: tuple[TrainingImage, ...]
    edge_px: int


def gather(store: ObjectStore, session: str, recipe: Recipe, scratch: Path, warn: Callable[[str], None]) -> Inputs:
    """Fetch and check. Raises InputWrong, and ArtifactError of the store."""
    folder = base_model.fetch(store, recipe.base_model, recipe.base_model_source, scratch)
    base = base_model.describe(recipe.base_model, folder)
    edge_px = recipe.resolution_px or base.resolution_px
    if edge_px % base.vae_factor:
        wanted = f"base model {base.name!r} needs a multiple of {base.vae_factor} px"
        raise PictureInvalid((f"resolution {edge_px} px: {wanted}",))
    images = dataset.load(Sessions(store), session, recipe, edge_px, warn)
    small = [image.filename for image in images if image.was_enlarged]
    if small:
        warn(f"smaller than {edge_px} px and therefore enlarged: {', '.join(small)}")
    return Inputs(base, images, edge_px)
