"""The recipe: what to train, how long and with which settings; parsed from JSON and checked at once.

`__main__` parses it before anything slow is imported. Rules that need the base model or the images are left to
`inputs`. Field for field it is darkroom.trainer.v1.Recipe with the defaults filled in, plus
where the base model lies and which checkpoint to publish.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from artifacts import names
from artifacts.errors import InvalidName

from dreambooth.errors import RecipeInvalid

TEXT_ENCODER: Final = "text_encoder"
UNET: Final = "unet"
PRECISIONS: Final = ("fp32", "bf16")
# The stages as trainers.md calls them: the first trains the text encoder and nothing else.
STAGES_MODE: Final = "text_encoder_only_first"


@dataclass(frozen=True)
class StageSettings:
    """One stage. steps: optimizer updates, 0 skips it. learning_rate: of the first step; falls linearly to 0."""

    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Recipe:
    """One training, complete.

    base_model: registry name. base_model_source: absolute path of a Diffusers folder, or a key prefix of the bucket
    ("models/sd15-tiny"). checkpoint: id to publish. resolution_px: edge of the training square; 0 is the base's own.
    batch_size: images per step. precision: "fp32", or "bf16" for bfloat16 autocast over fp32 weights. instance_prompt:
    the words of every image, empty for those of its file name. use_captions: append the image's caption.
    require_captions: refuse images without one. sample_every_steps: 0 draws samples at the end only. flip: mirror at
    random.
    """

    base_model: str
    base_model_source: str
    checkpoint: str
    text_encoder: StageSettings = StageSettings(350, 1e-6)
    unet: StageSettings = StageSettings(1500, 2e-6)
    resolution_px: int = 0
    batch_size: int = 1
    precision: str = "fp32"
    seed: int = 0
    instance_prompt: str = ""
    use_captions: bool = False
    require_captions: bool = False
    sample_prompts: tuple[str, ...] = field(default_factory=tuple)
    sample_every_steps: int = 0
    flip: bool = False

    @property
    def num_steps(self) -> int:
        """Updates of both stages."""
        return self.text_encoder.steps + self.unet.steps

    def record(self) -> dict[str, Any]:
        """The recipe as the checkpoint's manifest keeps it; paths of this machine stay out."""
        kept = {name: value for name, value in asdict(self).items() if name not in ("base_model_source", "checkpoint")}
        return kept | {"sample_prompts": list(self.sample_prompts), "stages": STAGES_MODE}


def parse(text: str) -> Recipe:
    """Read DARKROOM_RECIPE. Raises RecipeInvalid with every mistake, unknown fields included."""
    try:
        order = json.loads(text)
    except ValueError as error:
        raise RecipeInvalid((f"DARKROOM_RECIPE is not JSON: {error}",)) from error
    if not isinstance(order, dict):
        raise RecipeInvalid((f"DARKROOM_RECIPE is {type(order).__name__}: expected a JSON object",))
    reader = _Reader(order)
    recipe = Recipe(
        base_model=reader.text("base_model", required=True, longest=128),
        base_model_source=reader.text("base_model_source", required=True, longest=4096),
        checkpoint=reader.text("checkpoint", required=True, longest=128),
        text_encoder=reader.stage(TEXT_ENCODER, Recipe.text_encoder),
        unet=reader.stage(UNET, Recipe.unet),
        resolution_px=reader.integer("resolution_px", 0, 0, 2048),
        batch_size=reader.integer("batch_size", 1, 1, 64),
        precision=reader.choice("precision", PRECISIONS),
        seed=reader.integer("seed", 0, 0, 2**63 - 1),
        instance_prompt=reader.text("instance_prompt", longest=512).strip(),
        use_captions=reader.flag("use_captions"),
        require_captions=reader.flag("require_captions"),
        sample_prompts=reader.texts("sample_prompts", most=8, longest=512),
        sample_every_steps=reader.integer("sample_every_steps", 0, 0, 1_000_000),
        flip=reader.flag("flip"),
    )
    reader.problems.extend(_rules(recipe))
    if reader.problems:
        raise RecipeInvalid(tuple(reader.problems))
    return recipe


def _rules(recipe: Recipe) -> list[str]:
    """What no single field can say."""
    problems = []
    if recipe.num_steps == 0:
        problems.append("at least one stage must have steps: text_encoder.steps and unet.steps are both 0")
    if recipe.require_captions and not recipe.use_captions:
        problems.append("require_captions is set but use_captions is not: set both or neither")
    if 0 < recipe.resolution_px < 64:
        problems.append(f"resolution_px is {recipe.resolution_px}: expected 0 or 64 to 2048")
    try:
        names.checkpoint_id(recipe.checkpoint or "missing")
    except InvalidName as error:
        problems.append(f"checkpoint: {error}")
    return problems


class _Reader:
    """Takes typed values out of the JSON object; after a mistake the default stands in, so that all are found."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        known = {f.name for f in fields(Recipe)}
        self.problems = [
            f"{name}: unknown field, expected one of {sorted(known)}" for name in order if name not in known
        ]

    def text(self, name: str, *, required: bool = False, longest: int) -> str:
        value = self._order.get(name, "")
        if not isinstance(value, str) or len(value) > longest:
            self.problems.append(f"{name} is {_shown(value)}: expected a string of at most {longest} characters")
            return ""
        if required and not value:
            self.problems.append(f"{name} is missing")
        return str(value)

    def texts(self, name: str, *, most: int, longest: int) -> tuple[str, ...]:
        value = self._order.get(name, [])
        good = isinstance(value, list) and all(isinstance(item, str) and 0 < len(item) <= longest for item in value)
        if not good or len(value) > most:
            rule = f"at most {most} strings of 1 to {longest} characters"
            self.problems.append(f"{name} is {_shown(value)}: expected {rule}")
            return ()
        return tuple(value)

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        return self._integer(name, self._order.get(name, default), default, least, most)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        value = self._order.get(name, allowed[0])
        if value not in allowed:
            self.problems.append(f"{name} is {_shown(value)}: expected one of {', '.join(allowed)}")
            return allowed[0]
        return str(value)

    def flag(self, name: str) -> bool:
        value = self._order.get(name, False)
        if not isinstance(value, bool):
            self.problems.append(f"{name} is {_shown(value)}: expected true or false")
            return False
        return value

    def stage(self, name: str, default: StageSettings) -> StageSettings:
        value = self._order.get(name, {})
        if not isinstance(value, dict) or not set(value) <= {"steps", "learning_rate"}:
            self.problems.append(f'{name} is {_shown(value)}: expected {{"steps": ..., "learning_rate": ...}}')
            return default
        steps = self._integer(f"{name}.steps", value.get("steps", default.steps), default.steps, 0, 1_000_000)
        rate = value.get("learning_rate", default.learning_rate)
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if number and 0 < rate <= 0.1:
            return StageSettings(steps, float(rate))
        if steps > 0:
            self.problems.append(f"{name}.learning_rate is {_shown(rate)}: expected a number above 0, at most 0.1")
        return StageSettings(steps, default.learning_rate)

    def _integer(self, name: str, value: Any, default: int, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.problems.append(f"{name} is {_shown(value)}: expected a whole number from {least} to {most}")
            return default
        return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
