"""Everything a run needs from outside, fetched and checked before torch is imported: a wrong input ends in a second.

`__main__` gathers, `training` works on the result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from artifacts.sessions import Sessions
from artifacts.store import ObjectStore

from dreambooth import base_model, dataset
from dreambooth.base_model import BaseModel
from dreambooth.dataset import TrainingImage
from dreambooth.errors import PictureInvalid
from dreambooth.recipe import TEXT_ENCODER, UNET, Recipe
from dreambooth.watch import Watch
from dreambooth.wording import first_few


@dataclass(frozen=True)
class Inputs:
    """The checked base model, and the images at the resolution of each stage with steps, by edge in pixels."""

    base: BaseModel
    images: Mapping[int, tuple[TrainingImage, ...]]
    edges_px: Mapping[str, int]

    @property
    def edge_px(self) -> int:
        """Edge of the last stage's training square: that of samples, and of the checkpoint."""
        return list(self.edges_px.values())[-1]

    @property
    def num_images(self) -> int:
        """Instance images."""
        return len(next(iter(self.images.values())))

    def images_of(self, stage: str) -> tuple[TrainingImage, ...]:
        """The images of a stage."""
        return self.images[self.edges_px[stage]]


def gather(
    store: ObjectStore,
    session: str,
    recipe: Recipe,
    scratch: Path,
    warn: Callable[[str], None],
    watch: Watch | None = None,
) -> Inputs:
    """Fetch and check. Raises InputWrong, ArtifactError of the store, and what `watch` raises."""
    folder = base_model.fetch(store, recipe.base_model, recipe.base_model_source, scratch)
    base = base_model.describe(recipe.base_model, folder)
    steps = {TEXT_ENCODER: recipe.text_encoder.steps, UNET: recipe.unet.steps}
    edges_px = {stage: recipe.stage_px(stage) or base.resolution_px for stage in steps if steps[stage]}
    wanted = f"base model {base.name!r} needs a multiple of {base.vae_factor} px"
    odd = [f"resolution {edge_px} px: {wanted}" for edge_px in set(edges_px.values()) if edge_px % base.vae_factor]
    if odd:
        raise PictureInvalid(tuple(odd))
    images = dataset.load(Sessions(store), session, recipe, sorted(set(edges_px.values())), scratch, warn, watch)
    for edge_px, loaded in images.items():
        small = [image.filename for image in loaded if image.was_enlarged]
        if small:
            warn(f"smaller than {edge_px} px and therefore enlarged: {', '.join(first_few(small, 'images'))}")
    return Inputs(base, images, edges_px)
