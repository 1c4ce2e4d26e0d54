"""Request bodies of the A1111 API. Unknown fields are ignored as A1111 does; known ones are checked here or in `planning.py`.

Fields that A1111 has and this engine has not are in `UNSUPPORTED` with the values that mean "not wanted"; any other value
is refused, so that no wish is dropped silently.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from webui_engine.errors import Unsupported

MAX_SEED: Final = 2**53 - 1
"""Seeds travel through JSON, where larger numbers lose digits."""

Seed = Annotated[int, Field(ge=-1, le=MAX_SEED)]
Side = Annotated[int, Field(ge=8, le=16384)]

_OFF: Final = (None, False, 0, "", "None")
_NO_NOISE: Final = (None, 0)

# field: (values that mean "not wanted", what to do instead)
UNSUPPORTED: Final[Mapping[str, tuple[tuple[object, ...], str]]] = {
    "enable_hr": (_OFF, "draw at the size you want, or use img2img on the result"),
    "restore_faces": (_OFF, "leave it out"),
    "tiling": (_OFF, "leave it out"),
    "styles": ((None, [], "None"), "write the style into the prompt"),
    "refiner_checkpoint": (_OFF, "leave it out"),
    "refiner_switch_at": ((None, 0, 0.8, 1), "leave it out"),
    "firstpass_image": (_OFF, "leave it out"),
    "infotext": (_OFF, "send the fields themselves; png-info reads them out of an infotext"),
    "save_images": (_OFF, "the pictures come with the reply"),
    "seed_resize_from_h": ((None, 0, -1), "leave it out"),
    "seed_resize_from_w": ((None, 0, -1), "leave it out"),
    "s_churn": (_NO_NOISE, "leave it out"),
    "s_tmin": (_NO_NOISE, "leave it out"),
    "s_tmax": (_NO_NOISE, "leave it out"),
    "s_noise": ((None, 1), "leave it out"),
    "s_min_uncond": (_NO_NOISE, "leave it out"),
    "hr_checkpoint_name": ((None, "", "Use same checkpoint"), "leave it out"),
    "mask": (_OFF, "inpainting is not there; leave it out"),
    "latent_mask": (_OFF, "inpainting is not there; leave it out"),
    "image_cfg_scale": ((None, 0, 1.5, 7, 7.0), "leave it out"),
    "initial_noise_multiplier": ((None, 1), "leave it out"),
}


class Request(BaseModel):
    """A JSON body; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, body: Any) -> Any:
        """Refuse half a surrogate pair, which JSON can bring: no picture, log or answer could carry it."""
        json.dumps(body, ensure_ascii=False).encode()
        return body


class GenerationRequest(Request):
    """What txt2img and img2img share. Defaults are A1111's, but width and height: unset means the model's own size."""

    prompt: str = ""
    negative_prompt: str = ""
    seed: Seed = -1
    subseed: Seed = -1
    subseed_strength: float = Field(default=0, ge=0, le=1)
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: int = Field(default=1, ge=1)
    n_iter: int = Field(default=1, ge=1)
    steps: int = Field(default=50, ge=1, le=1000)
    cfg_scale: float = Field(default=7.0, ge=1, le=100)
    width: Side | None = None
    height: Side | None = None
    denoising_strength: float | None = Field(default=None, ge=0, le=1)
    eta: float | None = Field(default=None, ge=0, le=1)
    override_settings: dict[str, Any] | None = None
    override_settings_restore_afterwards: bool | None = True
    disable_extra_networks: bool = False
    script_name: str | None = None
    script_args: list[Any] | None = None
    send_images: bool = True
    alwayson_scripts: dict[str, dict[str, Any]] | None = None
    force_task_id: str | None = Field(default=None, max_length=256)

    # Taken only to be refused: see UNSUPPORTED.
    enable_hr: Any = None
    restore_faces: Any = None
    tiling: Any = None
    styles: Any = None
    refiner_checkpoint: Any = None
    refiner_switch_at: Any = None
    firstpass_image: Any = None
    infotext: Any = None
    save_images: Any = None
    seed_resize_from_h: Any = None
    seed_resize_from_w: Any = None
    s_churn: Any = None
    s_tmin: Any = None
    s_tmax: Any = None
    s_noise: Any = None
    s_min_uncond: Any = None
    hr_checkpoint_name: Any = None

    def refuse_unsupported(self) -> None:
        """Raise Unsupported for the first field that asks for what this engine cannot do."""
        for name, (neutral, advice) in UNSUPPORTED.items():
            value = getattr(self, name, None)
            if value not in neutral:
                raise Unsupported(name, value, advice)


class Txt2ImgRequest(GenerationRequest):
    """POST /sdapi/v1/txt2img. denoising_strength and hr_* mean something to A1111 only with enable_hr, which is refused."""


class Img2ImgRequest(GenerationRequest):
    """POST /sdapi/v1/img2img. resize_mode: 0 stretches, 1 crops; A1111's 2 and 3 are refused."""

    init_images: list[str] | None = None
    resize_mode: int = 0
    include_init_images: bool = False
    mask: Any = None
    latent_mask: Any = None
    image_cfg_scale: Any = None
    initial_noise_multiplier: Any = None


class PngInfoRequest(Request):
    """POST /sdapi/v1/png-info."""

    image: str


class DetectRequest(Request):
    """POST /controlnet/detect. -1 means the preprocessor's own value."""

    controlnet_module: str = "none"
    # The PyPI client webuiapi writes the shorter name.
    controlnet_input_images: list[str] = Field(
        default=[], validation_alias=AliasChoices("controlnet_input_images", "controlnet_images")
    )
    controlnet_processor_res: int = Field(default=-1, le=4096)
    controlnet_threshold_a: float = -1
    controlnet_threshold_b: float = -1
    controlnet_masks: list[str] | None = None


class ProgressRequest(Request):
    """POST /internal/progress."""

    id_task: str | None = None
    id_live_preview: int = -1
    live_preview: bool = True
