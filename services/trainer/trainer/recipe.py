"""How a run trains: the recipe with its defaults filled in, and the JSON form in which the program of a Job reads it.

`training` resolves a recipe before a run is accepted; limits of single fields are in the proto already.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from trainer.base_models import BaseModel
from trainer.errors import FieldsInvalid


@dataclass(frozen=True)
class StageSettings:
    """One stage. steps: optimizer updates, 0 skips it. learning_rate: peak, falls linearly to 0."""

    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Recipe:
    """Two-stage DreamBooth. base_model "" means the session's, resolution_px 0 the base model's own.

    precision is "fp32" or "bf16". The other fields mean what darkroom.trainer.v1.Recipe says.
    """

    base_model: str = ""
    text_encoder: StageSettings = StageSettings(350, 1e-6)
    unet: StageSettings = StageSettings(1500, 2e-6)
    resolution_px: int = 0
    batch_size: int = 1
    precision: str = "fp32"
    seed: int = 0
    instance_prompt: str = ""
    use_captions: bool = False
    require_captions: bool = False
    sample_prompts: tuple[str, ...] = ()
    sample_every_steps: int = 0
    flip: bool = False

    def check(self) -> None:
        """Raise FieldsInvalid if settings contradict each other."""
        if self.require_captions and not self.use_captions:
            problem = "needs use_captions, else the captions would not be read"
            raise FieldsInvalid(("recipe.require_captions", problem))

    def resolved(self, model: BaseModel) -> "Recipe":
        """The recipe for this base model, nothing left open. Raises ResolutionUnsupported."""
        resolution_px = self.resolution_px or model.native_px
        model.check_resolution(resolution_px)
        return replace(self, base_model=model.name, resolution_px=resolution_px)


def to_json(recipe: Recipe, base_model_source: str, checkpoint: str) -> dict[str, Any]:
    """The value of DARKROOM_RECIPE.

    base_model_source: absolute folder, or a prefix of the bucket without a slash at its end.
    checkpoint: id under which the program publishes.
    """
    fields = asdict(recipe)
    fields["sample_prompts"] = list(recipe.sample_prompts)
    return {**fields, "base_model_source": base_model_source, "checkpoint": checkpoint}


def from_json(fields: dict[str, Any]) -> Recipe:
    """The recipe out of `to_json`'s value; names it does not know are left out."""
    known = {name: fields[name] for name in Recipe.__dataclass_fields__ if name in fields}
    for stage in ("text_encoder", "unet"):
        known[stage] = StageSettings(**known[stage])
    known["sample_prompts"] = tuple(known.get("sample_prompts", ()))
    return Recipe(**known)
