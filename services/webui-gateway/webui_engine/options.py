"""The options that GET and POST /sdapi/v1/options and `override_settings` know.

`engine.py` holds the current ones. Options of A1111 that this engine has no use for are refused, not stored and ignored.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from webui_engine.errors import RequestInvalid, UnknownName, Unsupported

MODEL_KEYS: Final = ("sd_model_checkpoint", "sd_checkpoint_hash")

_FIXED: Final[Mapping[str, Any]] = {
    "sd_vae": "Automatic",
    "randn_source": "CPU",
    "eta_noise_seed_delta": 0,
    "samples_format": "png",
    "enable_pnginfo": True,
    "emphasis": "Original",
    "comma_padding_backtrack": 20,
    "img2img_background_color": "#ffffff",
    "img2img_fix_steps": False,
    "img2img_color_correction": False,
    "s_churn": 0.0,
    "s_tmin": 0.0,
    "s_tmax": 0.0,
    "s_noise": 1.0,
    "s_min_uncond": 0.0,
    "eta_ancestral": 1.0,
}
"""Options that describe how this engine works; another value is refused."""
_MAX_CLIP_SKIP: Final = 12


@dataclass(frozen=True)
class Options:
    """What may be changed. sd_model_checkpoint is the title of the current model, "" before one is loaded."""

    sd_model_checkpoint: str = ""
    sd_checkpoint_hash: str = ""
    CLIP_stop_at_last_layers: int = 1
    eta_ddim: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """All options, as GET /sdapi/v1/options shows them."""
        return {**asdict(self), **_FIXED}

    def changed(self, values: Mapping[str, Any], field: str) -> "Options":
        """The options with `values` set, models excepted. Raises UnknownName, Unsupported, RequestInvalid."""
        changes: dict[str, Any] = {}
        for name, value in values.items():
            if name in MODEL_KEYS:
                continue
            if name in _FIXED:
                if value != _FIXED[name]:
                    raise Unsupported(f"{field}.{name}", value, f"the only value is {_FIXED[name]!r}")
            elif name == "CLIP_stop_at_last_layers":
                changes[name] = int(_number(f"{field}.{name}", value, 1, _MAX_CLIP_SKIP))
            elif name == "eta_ddim":
                changes[name] = _number(f"{field}.{name}", value, 0, 1)
            else:
                raise UnknownName(f"{field}.{name}", "option", name, self.as_json())
        return replace(self, **changes)


def model_name(values: Mapping[str, Any], field: str) -> str | None:
    """The model that `values` ask for, None if they ask for none. Raises RequestInvalid if they ask for two."""
    names = {str(values[key]) for key in MODEL_KEYS if values.get(key)}
    hash_name, title = str(values.get("sd_checkpoint_hash") or ""), str(values.get("sd_model_checkpoint") or "")
    # A client that sends back what it got has both, of one model.
    if len(names) > 1 and hash_name[:10] not in title:
        raise RequestInvalid(
            field, f"sd_model_checkpoint {title!r} and sd_checkpoint_hash {hash_name!r} are two models"
        )
    return title or hash_name or None


def _number(field: str, value: Any, minimum: float, maximum: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
        raise RequestInvalid(field, f"found {value!r}, expected a number from {minimum} to {maximum}")
    return value
