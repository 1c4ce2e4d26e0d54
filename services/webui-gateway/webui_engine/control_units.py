"""ControlNet units as clients write them, checked and resolved: which control net, which picture, how strong, how long.

Called by `planning.py` for `alwayson_scripts.controlnet.args`; the pixels are left to `controlnet.py`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from PIL import Image
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from webui_engine import images
from webui_engine.catalogue import Catalogue, ControlNet
from webui_engine.errors import RequestInvalid, UnknownName, Unsupported

MODULES: Final = ("none", "canny")
ALIASES: Final = {"None": "none", "": "none"}
DETECT_RESOLUTION: Final = 512
MIN_RESOLUTION: Final = 64
LOW_THRESHOLD: Final = 100.0
HIGH_THRESHOLD: Final = 200.0
MAX_UNITS: Final = 3

_RESIZE_MODES: Final = {
    "just resize": False,
    "0": False,
    "scale to fit (inner fit)": True,
    "inner fit (scale to fit)": True,
    "crop and resize": True,
    "1": True,
}
_BALANCED: Final = ("balanced", "0")


class UnitRequest(BaseModel):
    """One unit. Without `enabled` it counts as enabled, because a unit that is written down is meant."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, populate_by_name=True, coerce_numbers_to_str=True)

    enabled: bool = True
    module: str = "none"
    model: str | None = None
    weight: float = Field(default=1.0, ge=0, le=2)
    image: Any = Field(default=None, validation_alias=AliasChoices("image", "input_image"))
    resize_mode: str = "Crop and Resize"
    processor_res: int = Field(default=-1, le=4096)
    threshold_a: float = -1
    threshold_b: float = -1
    guidance_start: Annotated[float, Field(ge=0, le=1)] = 0.0
    guidance_end: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, validation_alias=AliasChoices("guidance_end", "guidance")
    )
    pixel_perfect: bool = False
    control_mode: str = "Balanced"
    save_detected_map: bool = True
    mask: Any = Field(default=None, validation_alias=AliasChoices("mask", "mask_image"))
    advanced_weighting: Any = None


@dataclass(frozen=True)
class Unit:
    """A control net with its picture. start and end are shares of the steps, 0 to 1; thresholds are cv2.Canny's, 0 to 255.

    resolution: short side in pixels that the preprocessor works at; None means that of the picture drawn.
    """

    net: ControlNet
    module: Literal["none", "canny"]
    image: Image.Image
    weight: float
    start: float
    end: float
    crop: bool
    resolution: int | None
    low: float
    high: float
    save_map: bool

    @property
    def infotext(self) -> str:
        """The value of "ControlNet i" in the infotext."""
        return (
            f"Module: {self.module}, Model: {self.net.title}, Weight: {self.weight}, "
            f"Resize Mode: {'Crop and Resize' if self.crop else 'Just Resize'}, Threshold A: {self.low}, "
            f"Threshold B: {self.high}, Guidance Start: {self.start}, Guidance End: {self.end}, "
            "Pixel Perfect: False, Control Mode: Balanced"
        )


def resolve(args: list[Any], catalogue: Catalogue, init_image: Image.Image | None, max_pixels: int) -> tuple[Unit, ...]:
    """The enabled units. A unit without picture takes init_image, as img2img does. Raises RequestInvalid and its kin."""
    requests = [_parse(number, unit) for number, unit in enumerate(args)]
    enabled = [(number, unit) for number, unit in enumerate(requests) if unit.enabled and unit != UnitRequest()]
    if len(enabled) > MAX_UNITS:
        raise RequestInvalid(
            "alwayson_scripts.controlnet.args", f"found {len(enabled)} units, expected up to {MAX_UNITS}"
        )
    return tuple(_resolve(_place(number), unit, catalogue, init_image, max_pixels) for number, unit in enabled)


def check_module(field: str, name: str) -> Literal["none", "canny"]:
    """The preprocessor of this name. Raises UnknownName."""
    module = ALIASES.get(name, name).lower()
    if module not in MODULES:
        raise UnknownName(field, "preprocessor", name, MODULES)
    return "canny" if module == "canny" else "none"


def thresholds(field: str, low: float, high: float) -> tuple[float, float]:
    """cv2.Canny's thresholds; a negative one means the preprocessor's own (100, 200)."""
    found = (LOW_THRESHOLD if low < 0 else low, HIGH_THRESHOLD if high < 0 else high)
    if max(found) > 255:
        raise RequestInvalid(field, f"found thresholds {found[0]} and {found[1]}, expected at most 255")
    return found


def _place(number: int) -> str:
    return f"alwayson_scripts.controlnet.args[{number}]"


def _parse(number: int, unit: Any) -> UnitRequest:
    try:
        return UnitRequest.model_validate(unit)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RequestInvalid(_place(number), problems) from error


def _resolve(
    place: str, unit: UnitRequest, catalogue: Catalogue, init_image: Image.Image | None, max_pixels: int
) -> Unit:
    module = check_module(f"{place}.module", unit.module)
    if not unit.model or unit.model.lower() == "none":
        raise RequestInvalid(f"{place}.model", "no control net given; GET /controlnet/model_list names them")
    net = catalogue.find_control_net(unit.model)
    if unit.guidance_start > unit.guidance_end:
        raise RequestInvalid(
            f"{place}.guidance_start", f"{unit.guidance_start} is after guidance_end {unit.guidance_end}"
        )
    if unit.control_mode.lower() not in _BALANCED:
        raise Unsupported(f"{place}.control_mode", unit.control_mode, "use 'Balanced' and change the weight")
    if unit.resize_mode.lower() not in _RESIZE_MODES:
        raise Unsupported(f"{place}.resize_mode", unit.resize_mode, "use 'Just Resize' or 'Crop and Resize'")
    if unit.mask is not None or unit.advanced_weighting is not None:
        raise Unsupported(f"{place}", "a mask or advanced_weighting", "leave them out")
    low, high = thresholds(f"{place}.threshold_a", unit.threshold_a, unit.threshold_b)
    image = _picture(f"{place}.image", unit.image, init_image, max_pixels)
    resolution = None
    if module == "canny" and unit.processor_res > 0 and not unit.pixel_perfect:
        resolution = max(unit.processor_res, MIN_RESOLUTION)
        images.check_short_side(f"{place}.image", image, resolution, max_pixels)
    return Unit(
        net=net,
        module=module,
        image=image,
        weight=unit.weight,
        start=unit.guidance_start,
        end=unit.guidance_end,
        crop=_RESIZE_MODES[unit.resize_mode.lower()],
        resolution=resolution,
        low=low,
        high=high,
        save_map=unit.save_detected_map,
    )


def _picture(field: str, value: Any, init_image: Image.Image | None, max_pixels: int) -> Image.Image:
    if isinstance(value, dict):
        if value.get("mask"):
            raise Unsupported(field, "a mask", "leave it out")
        value = value.get("image")
    if value is None and init_image is not None:
        return init_image
    if value is None:
        raise RequestInvalid(field, "the control net has no picture to read; send base64")
    return images.to_rgb(images.open_image(field, value, max_pixels))
