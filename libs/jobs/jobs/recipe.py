"""How a run trains: the recipe with its defaults filled in, and the JSON form in which the program of a Job reads it.

The trainer resolves a recipe before a run is accepted; `presets` holds the ready recipes. Limits of single fields are in the
proto, and for a run file in `recipe_file`.
"""

from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any, Protocol

from jobs.errors import FieldsInvalid

# What the program takes; more would average over millions of steps.
MAX_EMA_DECAY = 0.999999
TEXT_ENCODER_ONLY_FIRST, JOINT_THEN_FREEZE = "text_encoder_only_first", "joint_then_freeze"


class BaseModel(Protocol):
    """What a recipe needs to know of its base model. native_px: edge it was trained at."""

    @property
    def name(self) -> str: ...

    @property
    def native_px(self) -> int: ...

    def check_resolution(self, resolution_px: int) -> None:
        """Raise an error of its own unless the model can train at this edge."""


@dataclass(frozen=True)
class StageSettings:
    """One stage. steps: optimizer updates, 0 skips it. learning_rate: peak. resolution_px: 0 means the recipe's."""

    steps: int
    learning_rate: float
    schedule: str = "linear"
    warmup_steps: int = 0
    resolution_px: int = 0


@dataclass(frozen=True)
class Lora:
    """Adapters that count alpha / rank."""

    rank: int = 16
    alpha: float = 16.0


@dataclass(frozen=True)
class PriorPreservation:
    """Class images beside the instance images."""

    class_prompt: str
    num_class_images: int = 100
    weight: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Two-stage DreamBooth. base_model "" means the session's, resolution_px 0 the base model's own.

    precision is "fp32", "bf16" or "fp16". The other fields mean what darkroom.trainer.v1.Recipe says.
    """

    base_model: str = ""
    text_encoder: StageSettings = StageSettings(350, 1e-6)
    unet: StageSettings = StageSettings(1500, 2e-6)
    stages: str = TEXT_ENCODER_ONLY_FIRST
    lora: Lora | None = None
    prior_preservation: PriorPreservation | None = None
    resolution_px: int = 0
    crop: str = "random"
    flip: bool = False
    instance_prompt: str = ""
    use_captions: bool = False
    require_captions: bool = False
    caption_dropout: float = 0.0
    batch_size: int = 1
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    precision: str = "fp32"
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    offset_noise: float = 0.0
    min_snr_gamma: float = 0.0
    ema_decay: float = 0.0
    seed: int = 0
    sample_prompts: tuple[str, ...] = ()
    sample_every_steps: int = 0
    resume_point_every_steps: int = 0
    resume_point_every_minutes: int = 5
    keep_resume_points: int = 2
    reference_order: bool = False

    def check(self) -> None:
        """Raise FieldsInvalid with every setting that contradicts another one."""
        problems = []
        if self.require_captions and not self.use_captions:
            problems.append(("recipe.require_captions", "needs use_captions, else the captions would not be read"))
        if self.prior_preservation and not self.prior_preservation.class_prompt:
            problems.append(("recipe.prior_preservation.class_prompt", "is blank, expected what the class images show"))
        if self.ema_decay > MAX_EMA_DECAY:
            problems.append(("recipe.ema_decay", f"is {self.ema_decay:.12g}, expected at most {MAX_EMA_DECAY}"))
        for name, stage in (("text_encoder", self.text_encoder), ("unet", self.unet)):
            if 0 < stage.steps <= stage.warmup_steps:
                problem = f"is {stage.warmup_steps}, expected fewer than the stage's {stage.steps} steps"
                problems.append((f"recipe.{name}.warmup_steps", problem))
        if self.prior_preservation and self.crop == "buckets":
            problems.append(("recipe.crop", "buckets do not go with prior_preservation: use random or center"))
        both = self.text_encoder.steps > 0 and self.unet.steps > 0
        if self.optimizer == "prodigy" and self.stages == JOINT_THEN_FREEZE and both:
            reason = "Prodigy finds one step size for all weights, which have rates and ends of their own there"
            problems.append(
                ("recipe.stages", f"{JOINT_THEN_FREEZE} does not go with prodigy: {reason}; choose another mode")
            )
        if self.reference_order:
            wrong = [f"{field} is not part of train_dreambooth.py" for field in self._beside_the_reference()]
            problems += [("recipe.reference_order", text) for text in wrong]
        if problems:
            raise FieldsInvalid(*problems)

    def resolved(self, model: BaseModel) -> "Recipe":
        """The recipe for this base model, nothing left open. Raises what its check raises."""
        resolution_px = self.resolution_px or model.native_px
        for edge_px in {resolution_px, self.text_encoder.resolution_px, self.unet.resolution_px} - {0}:
            model.check_resolution(edge_px)
        return replace(self, base_model=model.name, resolution_px=resolution_px)

    def _beside_the_reference(self) -> list[str]:
        joint = self.text_encoder.steps > 0
        wrong = {
            "crop": self.crop == "buckets",
            "flip": self.flip,
            "lora": self.lora is not None,
            "caption_dropout": self.caption_dropout > 0,
            "ema_decay": self.ema_decay > 0,
            "min_snr_gamma with prior_preservation": self.min_snr_gamma > 0 and self.prior_preservation is not None,
            f"stages {self.stages}": joint and self.stages != JOINT_THEN_FREEZE,
            "unet.steps after a joint stage": joint and self.unet.steps > 0,
        }
        return [name for name, is_wrong in wrong.items() if is_wrong]


def to_json(recipe: Recipe, base_model_source: str, checkpoint: str) -> dict[str, Any]:
    """The value of DARKROOM_RECIPE.

    base_model_source: absolute folder, or a prefix of the bucket without a slash at its end.
    checkpoint: id under which the program publishes.
    """
    fields = asdict(recipe)
    fields["sample_prompts"] = list(recipe.sample_prompts)
    return {**fields, "base_model_source": base_model_source, "checkpoint": checkpoint}


def from_json(fields: dict[str, Any]) -> Recipe:
    """The recipe out of `to_json`'s value; names it does not know are left out, those it lacks have their default."""
    known = _known(Recipe, fields)
    for stage in ("text_encoder", "unet"):
        known[stage] = StageSettings(**_known(StageSettings, known[stage]))
    for name, kind in (("lora", Lora), ("prior_preservation", PriorPreservation)):
        known[name] = kind(**_known(kind, known[name])) if known.get(name) else None
    known["sample_prompts"] = tuple(known.get("sample_prompts", ()))
    return Recipe(**known)


def _known(kind: type, fields: dict[str, Any]) -> dict[str, Any]:
    return {each.name: fields[each.name] for each in dataclass_fields(kind) if each.name in fields}
