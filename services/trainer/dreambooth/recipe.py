"""The recipe: what to train, how long and with which settings; parsed from JSON and checked at once.

`__main__` parses it before anything slow is imported. Rules that need the base model or the images are left to
`inputs`. Field for field it is darkroom.trainer.v1.Recipe with the defaults filled in, plus
where the base model lies and which checkpoint to publish.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from artifacts import names
from artifacts.errors import InvalidName

from dreambooth.errors import RecipeInvalid
from dreambooth.recipe_reader import Reader

TEXT_ENCODER: Final = "text_encoder"
UNET: Final = "unet"
PRECISIONS: Final = ("fp32", "bf16", "fp16")
SCHEDULES: Final = ("linear", "constant", "cosine", "polynomial")
ONLY_FIRST, THEN_DISCARD, THEN_FREEZE = STAGES_MODES = (
    "text_encoder_only_first",
    "joint_then_discard",
    "joint_then_freeze",
)
ADAMW, ADAMW_8BIT, PRODIGY, ADAFACTOR = OPTIMIZERS = ("adamw", "adamw_8bit", "prodigy", "adafactor")
RANDOM_CROP, CENTER_CROP, BUCKETS = CROPS = ("random", "center", "buckets")
MAX_RATE: Final = 0.1
MAX_PRODIGY_RATE: Final = 10.0


@dataclass(frozen=True)
class StageSettings:
    """One stage. steps: optimizer updates, 0 skips it. learning_rate: the peak. schedule: one of SCHEDULES, see
    `schedules`. warmup_steps: in which the rate rises to its peak. resolution_px: 0 is the recipe's."""

    steps: int
    learning_rate: float
    schedule: str = SCHEDULES[0]
    warmup_steps: int = 0
    resolution_px: int = 0


@dataclass(frozen=True)
class Lora:
    """Adapters instead of weights. They count alpha / rank."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class PriorPreservation:
    """Class images beside the instance images. weight: of their loss."""

    class_prompt: str
    num_class_images: int = 100
    weight: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """One training, complete.

    base_model: registry name. base_model_source: absolute path of a Diffusers folder, or a key prefix of the bucket
    ("models/sd15-tiny"). checkpoint: id to publish. resolution_px: edge of the training square; 0 is the base's own.
    batch_size: images per micro-step and process. precision: "fp32", or autocast to "bf16" or "fp16" over fp32
    weights. instance_prompt: the words of every image, empty for those of its file name. use_captions: append the
    image's caption. require_captions: refuse images without one. sample_every_steps: 0 draws samples at the end only.
    flip: mirror at random. caption_dropout: share of images shown with an empty prompt. max_gradient_norm: 0 does not
    clip. min_snr_gamma, ema_decay, offset_noise: 0 is off. resume_point_every_steps: 0 is by time only.
    """

    base_model: str
    base_model_source: str
    checkpoint: str
    text_encoder: StageSettings = StageSettings(350, 1e-6)
    unet: StageSettings = StageSettings(1500, 2e-6)
    stages: str = ONLY_FIRST
    lora: Lora | None = None
    prior_preservation: PriorPreservation | None = None
    resolution_px: int = 0
    crop: str = RANDOM_CROP
    flip: bool = False
    instance_prompt: str = ""
    use_captions: bool = False
    require_captions: bool = False
    caption_dropout: float = 0.0
    batch_size: int = 1
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    precision: str = PRECISIONS[0]
    optimizer: str = ADAMW
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

    @property
    def num_steps(self) -> int:
        """Updates of both stages."""
        return self.text_encoder.steps + self.unet.steps

    def stage_px(self, stage: str) -> int:
        """Edge of the training square of a stage; 0 is the base's own."""
        settings = self.text_encoder if stage == TEXT_ENCODER else self.unet
        return settings.resolution_px or self.resolution_px

    def record(self) -> dict[str, Any]:
        """The recipe as the checkpoint's manifest keeps it; paths of this machine stay out."""
        kept = {name: value for name, value in asdict(self).items() if name not in ("base_model_source", "checkpoint")}
        return kept | {"sample_prompts": list(self.sample_prompts)}


def parse(text: str) -> Recipe:
    """Read DARKROOM_RECIPE. Raises RecipeInvalid with every mistake, unknown fields included."""
    try:
        order = json.loads(text)
    except ValueError as error:
        raise RecipeInvalid((f"DARKROOM_RECIPE is not JSON: {error}",)) from error
    if not isinstance(order, dict):
        raise RecipeInvalid((f"DARKROOM_RECIPE is {type(order).__name__}: expected a JSON object",))
    reader = Reader(order, _names(Recipe))
    optimizer = reader.choice("optimizer", OPTIMIZERS)
    recipe = Recipe(
        base_model=reader.text("base_model", required=True, longest=128),
        base_model_source=reader.text("base_model_source", required=True, longest=4096),
        checkpoint=reader.text("checkpoint", required=True, longest=128),
        text_encoder=_stage(reader, TEXT_ENCODER, Recipe.text_encoder, optimizer),
        unet=_stage(reader, UNET, Recipe.unet, optimizer),
        stages=reader.choice("stages", STAGES_MODES),
        lora=reader.nested("lora", _names(Lora), _lora, None),
        prior_preservation=reader.nested("prior_preservation", _names(PriorPreservation), _prior, None),
        resolution_px=reader.integer("resolution_px", 0, 0, 2048),
        crop=reader.choice("crop", CROPS),
        flip=reader.flag("flip"),
        instance_prompt=reader.text("instance_prompt", longest=512).strip(),
        use_captions=reader.flag("use_captions"),
        require_captions=reader.flag("require_captions"),
        caption_dropout=reader.number("caption_dropout", 0.0, 0, 1),
        batch_size=reader.integer("batch_size", 1, 1, 64),
        gradient_accumulation_steps=reader.integer("gradient_accumulation_steps", 1, 1, 256),
        gradient_checkpointing=reader.flag("gradient_checkpointing"),
        precision=reader.choice("precision", PRECISIONS),
        optimizer=optimizer,
        weight_decay=reader.number("weight_decay", Recipe.weight_decay, 0, 1),
        max_gradient_norm=reader.number("max_gradient_norm", Recipe.max_gradient_norm, 0, 1000),
        offset_noise=reader.number("offset_noise", 0.0, 0, 1),
        min_snr_gamma=reader.number("min_snr_gamma", 0.0, 0, 100),
        ema_decay=reader.number("ema_decay", 0.0, 0, 0.999999),
        seed=reader.integer("seed", 0, 0, 2**63 - 1),
        sample_prompts=reader.texts("sample_prompts", most=8, longest=512),
        sample_every_steps=reader.integer("sample_every_steps", 0, 0, 1_000_000),
        resume_point_every_steps=reader.integer("resume_point_every_steps", 0, 0, 1_000_000),
        resume_point_every_minutes=reader.integer("resume_point_every_minutes", 5, 1, 1440),
        keep_resume_points=reader.integer("keep_resume_points", 2, 1, 100),
        reference_order=reader.flag("reference_order"),
    )
    reader.problems.extend(_rules(recipe))
    if reader.problems:
        raise RecipeInvalid(tuple(reader.problems))
    return recipe


def _stage(reader: Reader, name: str, default: StageSettings, optimizer: str) -> StageSettings:
    most = MAX_PRODIGY_RATE if optimizer == PRODIGY else MAX_RATE

    def read(inner: Reader) -> StageSettings:
        steps = inner.integer("steps", default.steps, 0, 1_000_000)
        return StageSettings(
            steps=steps,
            learning_rate=inner.number("learning_rate", default.learning_rate, 0, most, above=True)
            if steps
            else default.learning_rate,  # that of a skipped stage may be anything
            schedule=inner.choice("schedule", SCHEDULES),
            warmup_steps=inner.integer("warmup_steps", 0, 0, 1_000_000),
            resolution_px=inner.integer("resolution_px", 0, 0, 2048),
        )

    return reader.nested(name, _names(StageSettings), read, default)


def _lora(inner: Reader) -> Lora:
    rank = inner.integer("rank", 16, 1, 256)
    return Lora(rank, inner.number("alpha", float(rank), 0, 1024, above=True))


def _prior(inner: Reader) -> PriorPreservation:
    return PriorPreservation(
        class_prompt=inner.text("class_prompt", required=True, longest=512).strip(),
        num_class_images=inner.integer("num_class_images", 100, 1, 10_000),
        weight=inner.number("weight", 1.0, 0, 10, above=True),
    )


def _rules(recipe: Recipe) -> list[str]:
    """What no single field can say."""
    problems = []
    if recipe.num_steps == 0:
        problems.append("at least one stage must have steps: text_encoder.steps and unet.steps are both 0")
    if recipe.require_captions and not recipe.use_captions:
        problems.append("require_captions is set but use_captions is not: set both or neither")
    for name, edge_px in (
        ("resolution_px", recipe.resolution_px),
        ("text_encoder.resolution_px", recipe.text_encoder.resolution_px),
        ("unet.resolution_px", recipe.unet.resolution_px),
    ):
        if 0 < edge_px < 64:
            problems.append(f"{name} is {edge_px}: expected 0 or 64 to 2048")
    for name, stage in ((TEXT_ENCODER, recipe.text_encoder), (UNET, recipe.unet)):
        if 0 < stage.steps <= stage.warmup_steps:
            problems.append(f"{name}.warmup_steps is {stage.warmup_steps}: expected fewer than its {stage.steps} steps")
    if recipe.prior_preservation and recipe.crop == BUCKETS:
        problems.append("prior_preservation with crop buckets: class images are squares, use crop random or center")
    if recipe.optimizer == PRODIGY and recipe.stages == THEN_FREEZE and recipe.text_encoder.steps and recipe.unet.steps:
        problems.append(
            f"optimizer {PRODIGY} with stages {THEN_FREEZE}: Prodigy finds one step size for all weights, which have "
            "rates and ends of their own there; choose another stages mode"
        )
    if recipe.reference_order:
        problems += _reference_rules(recipe)
    try:
        names.checkpoint_id(recipe.checkpoint or "missing")
    except InvalidName as error:
        problems.append(f"checkpoint: {error}")
    return problems


def _reference_rules(recipe: Recipe) -> list[str]:
    """The script that is followed has one stage and none of these."""
    wrong = {
        "crop buckets": recipe.crop == BUCKETS,
        "flip": recipe.flip,
        "lora": recipe.lora is not None,
        "caption_dropout": recipe.caption_dropout > 0,
        "ema_decay": recipe.ema_decay > 0,
        "prior_preservation with min_snr_gamma": recipe.prior_preservation is not None and recipe.min_snr_gamma > 0,
        f"two stages in mode {recipe.stages}": recipe.text_encoder.steps > 0 and recipe.stages != THEN_FREEZE,
        "unet.steps after a joint stage": recipe.text_encoder.steps > 0 and recipe.unet.steps > 0,
    }
    return [f"reference_order: train_dreambooth.py has no {name}" for name, is_wrong in wrong.items() if is_wrong]


def _names(kind: type) -> set[str]:
    return {each.name for each in fields(kind)}
