"""The API of sd-webui-controlnet: lists, and preprocessors on their own. Installed by `app.py`."""

from typing import Any, Final

from fastapi import APIRouter, Request

from webui_engine import control_units, images
from webui_engine.errors import RequestInvalid, Unsupported
from webui_engine.generation_routes import engine_of
from webui_engine.schemas import DetectRequest

API_VERSION: Final = 3

router = APIRouter(prefix="/controlnet")

_CANNY_SLIDERS: Final = (
    {"name": "Resolution", "value": control_units.DETECT_RESOLUTION, "min": 64, "max": 2048, "step": 8},
    {"name": "Low Threshold", "value": 100, "min": 1, "max": 255, "step": 1},
    {"name": "High Threshold", "value": 200, "min": 1, "max": 255, "step": 1},
)


@router.get("/version")
def version() -> dict[str, int]:
    """The version of the API."""
    return {"version": API_VERSION}


@router.get("/model_list")
def model_list(request: Request, update: bool = True) -> dict[str, list[str]]:
    """Control nets; folders are read again by refresh-checkpoints."""
    return {"model_list": ["None", *(net.title for net in engine_of(request).catalogue.control_nets())]}


@router.get("/module_list")
def module_list(request: Request, alias_names: bool = False) -> dict[str, Any]:
    """Preprocessors and their sliders."""
    details = {
        "none": {"model_free": False, "sliders": []},
        "canny": {"model_free": False, "sliders": list(_CANNY_SLIDERS)},
    }
    return {"module_list": list(details), "module_detail": details}


@router.get("/control_types")
def control_types(request: Request) -> dict[str, Any]:
    """Preprocessors and control nets that belong together."""
    titles = [net.title for net in engine_of(request).catalogue.control_nets()]
    canny = [title for title in titles if "canny" in title.lower()]
    return {
        "control_types": {
            "All": _control_type(["none", "canny"], titles, "none"),
            "Canny": _control_type(["canny", "none"], canny, "canny"),
        }
    }


@router.get("/settings")
def settings() -> dict[str, int]:
    """How many units a request may have."""
    return {"control_net_unit_count": control_units.MAX_UNITS}


@router.post("/detect")
def detect(body: DetectRequest, request: Request) -> dict[str, Any]:
    """Run a preprocessor on pictures."""
    from webui_engine import controlnet

    module = control_units.check_module("controlnet_module", body.controlnet_module)
    if not body.controlnet_input_images:
        raise RequestInvalid("controlnet_input_images", "No image selected: send at least one base64 picture")
    if body.controlnet_masks:
        raise Unsupported("controlnet_masks", "masks", "leave them out")
    low, high = control_units.thresholds(
        "controlnet_threshold_a", body.controlnet_threshold_a, body.controlnet_threshold_b
    )
    resolution = body.controlnet_processor_res if body.controlnet_processor_res > 0 else control_units.DETECT_RESOLUTION
    resolution = max(resolution, control_units.MIN_RESOLUTION)
    limit = engine_of(request).config.max_image_pixels
    pictures = [
        images.to_rgb(images.open_image(f"controlnet_input_images[{number}]", text, limit))
        for number, text in enumerate(body.controlnet_input_images)
    ]
    if module == "canny":
        for number, picture in enumerate(pictures):
            images.check_short_side(f"controlnet_input_images[{number}]", picture, resolution, limit)
    found = [controlnet.detect(picture, module, resolution, low, high) for picture in pictures]
    return {"images": [images.encode_png(picture) for picture in found], "info": "Success"}


def _control_type(modules: list[str], models: list[str], module: str) -> dict[str, Any]:
    return {
        "module_list": modules,
        "model_list": ["None", *models],
        "default_option": module,
        "default_model": models[0] if models else "None",
    }
