"""From a request to a plan: every name resolved, every wish either understood or refused, before anything is queued.

Called by the generation routes; `generate.py` draws the plan. What depends on the loaded model (its own size, the sizes it
can draw) is settled by `size_for` when the worker has it.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from webui_engine import control_units, images, lora_tags, options, prompts, samplers
from webui_engine.catalogue import Catalogue, Model
from webui_engine.control_units import Unit
from webui_engine.errors import InitImageMissing, RequestInvalid, ResolutionRefused, UnknownName, Unsupported
from webui_engine.lora_catalogue import LoraUse
from webui_engine.options import Options
from webui_engine.schemas import GenerationRequest, Img2ImgRequest

CONTROLNET_SCRIPT: Final = "controlnet"
DEFAULT_DENOISING: Final = 0.75
SIDE_STEP_PX: Final = 8
MIN_SIDE_PX: Final = 64
MAX_SIDES: Final = 4
"""A model draws sides of up to this many times its own; beyond, pictures repeat their subject."""
_RANDOM_SEEDS: Final = 2**32 - 1


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    max_image_pixels: int
    max_images: int


@dataclass(frozen=True)
class Plan:
    """One request, resolved. Image i (from 0) uses seed + i, or seed and subseed + i if subseed_strength > 0.

    prompt: as it came; words: without its tags; loras: what the tags mean. model: None means the current one. width, height: None means the model's own, or init_image's. eta: None if the sampler
    has none. init_image: RGB, None for txt2img. override: options for this request; keep_override leaves them set.
    """

    prompt: str
    words: str
    loras: tuple[LoraUse, ...]
    negative_prompt: str
    choice: samplers.Choice
    steps: int
    cfg_scale: float
    width: int | None
    height: int | None
    seed: int
    subseed: int
    subseed_strength: float
    batch_size: int
    n_iter: int
    eta: float | None
    init_image: Image.Image | None
    denoising_strength: float | None
    crop: bool
    units: tuple[Unit, ...]
    model: Model | None
    override: Mapping[str, Any]
    keep_override: bool

    @property
    def seeds(self) -> list[int]:
        """The seed of each image."""
        fixed = self.subseed_strength > 0
        return [self.seed if fixed else self.seed + i for i in range(self.batch_size * self.n_iter)]

    @property
    def subseeds(self) -> list[int]:
        """The variation seed of each image."""
        return [self.subseed + i for i in range(self.batch_size * self.n_iter)]


def make_plan(request: GenerationRequest, catalogue: Catalogue, current: Options, limits: Limits) -> Plan:
    """Resolve a request. Raises RequestInvalid and its kin, InitImageMissing, StoreDown."""
    request.refuse_unsupported()
    _check_scripts(request)
    words, tags = lora_tags.split("prompt", request.prompt, not request.disable_extra_networks)
    prompts.check("prompt", words)
    prompts.check("negative_prompt", request.negative_prompt)
    if request.batch_size * request.n_iter > limits.max_images:
        found = f"batch_size {request.batch_size} times n_iter {request.n_iter}"
        raise RequestInvalid("batch_size", f"found {found}, expected at most {limits.max_images} pictures")
    choice = samplers.choose(request.sampler_name or request.sampler_index, request.scheduler)
    _check_steps(choice.sampler, request)
    override = {key: value for key, value in (request.override_settings or {}).items() if value is not None}
    effective = current.changed(override, "override_settings")
    name = options.model_name(override, "override_settings")
    model = catalogue.find(name, "override_settings.sd_model_checkpoint") if name else None
    init_image = _init_image(request, limits) if isinstance(request, Img2ImgRequest) else None
    return Plan(
        prompt=request.prompt,
        words=words,
        loras=catalogue.loras.resolve(tags),
        negative_prompt=request.negative_prompt,
        choice=choice,
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        width=_side("width", request.width),
        height=_side("height", request.height),
        seed=_seed(request.seed),
        subseed=_seed(request.subseed),
        subseed_strength=request.subseed_strength,
        batch_size=request.batch_size,
        n_iter=request.n_iter,
        eta=_eta(choice.sampler, request.eta, effective),
        init_image=init_image,
        denoising_strength=_denoising(request),
        crop=isinstance(request, Img2ImgRequest) and request.resize_mode == 1,
        units=_units(request, catalogue, init_image, limits),
        model=model,
        override={key: value for key, value in override.items() if key not in options.MODEL_KEYS},
        keep_override=request.override_settings_restore_afterwards is False,
    )


def size_for(plan: Plan, model: str, native_px: int) -> tuple[int, int]:
    """Width and height to draw: as asked, else the model's own side. Raises ResolutionRefused, naming model and size.

    native_px is the side of the pictures the model was made for.
    """
    low, high = min(MIN_SIDE_PX, native_px), MAX_SIDES * native_px
    width, height = plan.width or native_px, plan.height or native_px
    for name, side in (("width", width), ("height", height)):
        if not low <= side <= high:
            rule = f"sides from {low} to {high} px (its own is {native_px})"
            raise ResolutionRefused(name, f"{width}x{height}", model, rule)
    return width, height


def _side(name: str, value: int | None) -> int | None:
    if value is not None and value % SIDE_STEP_PX:
        near = max(SIDE_STEP_PX, round(value / SIDE_STEP_PX) * SIDE_STEP_PX)
        raise RequestInvalid(name, f"found {value}, expected a multiple of {SIDE_STEP_PX}, for example {near}")
    return value


def _seed(value: int) -> int:
    return secrets.randbelow(_RANDOM_SEEDS) if value == -1 else value


def _eta(sampler: samplers.Sampler, eta: float | None, current: Options) -> float | None:
    """DDIM takes eta; for ancestral and SDE samplers diffusers has eta 1 built in; to the others it means nothing."""
    if sampler.fixed_eta and eta not in (None, 1):
        raise Unsupported("eta", eta, f"sampler {sampler.name!r} always has eta 1")
    if sampler.eta is None:
        return None
    return current.eta_ddim if eta is None else eta


def _denoising(request: GenerationRequest) -> float | None:
    if not isinstance(request, Img2ImgRequest):
        return None
    return DEFAULT_DENOISING if request.denoising_strength is None else request.denoising_strength


def _check_steps(sampler: samplers.Sampler, request: GenerationRequest) -> None:
    if not sampler.min_steps <= request.steps <= sampler.max_steps:
        limits = f"{sampler.min_steps} to {sampler.max_steps}"
        raise RequestInvalid("steps", f"found {request.steps}, but sampler {sampler.name!r} takes {limits}")


def _check_scripts(request: GenerationRequest) -> None:
    if request.script_name:
        raise UnknownName("script_name", "script", request.script_name, ())
    for name in request.alwayson_scripts or {}:
        if name.lower() != CONTROLNET_SCRIPT:
            raise UnknownName("alwayson_scripts", "always on script", name, (CONTROLNET_SCRIPT,))


def _init_image(request: Img2ImgRequest, limits: Limits) -> Image.Image:
    if not request.init_images:
        raise InitImageMissing
    if len(request.init_images) > 1:
        raise Unsupported("init_images", f"{len(request.init_images)} pictures", "send one picture per request")
    if request.resize_mode not in (0, 1):
        raise Unsupported("resize_mode", request.resize_mode, "use 0 (just resize) or 1 (crop and resize)")
    return images.to_rgb(images.open_image("init_images[0]", request.init_images[0], limits.max_image_pixels))


def _units(
    request: GenerationRequest, catalogue: Catalogue, init_image: Image.Image | None, limits: Limits
) -> tuple[Unit, ...]:
    args = [unit for script in (request.alwayson_scripts or {}).values() for unit in script.get("args", [])]
    return control_units.resolve(args, catalogue, init_image, limits.max_image_pixels)
