"""From a client's A1111 body to one that a certain back end draws exactly as meant, or refuses.

Domain; `gateway` calls it. Fields that it does not know go on to the back end, which has the last word about them.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from webui_gateway.architectures import ALL_PRECISIONS
from webui_gateway.control_nets import ControlNetRegistry
from webui_gateway.errors import ControlNetUnavailable, ModelUnavailable, RequestInvalid
from webui_gateway.models import Model, ModelRegistry, check_size

_MAX_SEED: Final = 2**32 - 1
# An id travels in a header and in a path.
_JOB_ID: Final = re.compile(r"[!-~]{1,64}")
# Values of A1111's other fields that name a model and mean "none" or "the same".
_NO_MODEL: Final = (None, "", "None", "none", "Use same checkpoint")
_MORE_MODELS: Final = ("refiner_checkpoint", "hr_checkpoint_name")


@dataclass(frozen=True)
class Wish:
    """A body taken apart. checkpoint: the model that it names, or "". keep_checkpoint: it shall stay selected.

    body: the fields as they came, with fixed seeds, without those that only the gateway understands.
    """

    body: dict[str, Any]
    checkpoint: str
    keep_checkpoint: bool
    precision: str
    job_id: str


def understood(body: Mapping[str, Any]) -> Wish:
    """Take a body apart. Raises RequestInvalid."""
    overrides = dict(_mapping(body, "override_settings"))
    _mapping(body, "alwayson_scripts")
    checkpoint = checkpoint_of(overrides)
    keep = body.get("override_settings_restore_afterwards") is False
    if keep and overrides:
        raise RequestInvalid(
            "override_settings_restore_afterwards=false would leave its settings on one back end only; set "
            f"{', '.join(overrides)} by POST /sdapi/v1/options"
        )
    precision = _text(body, "precision")
    if precision not in ("", *ALL_PRECISIONS):
        raise RequestInvalid(f"precision must be one of {', '.join(ALL_PRECISIONS)}, found {precision!r}")
    job_id = _text(body, "force_task_id")
    if job_id and not _JOB_ID.fullmatch(job_id):
        raise RequestInvalid(f"force_task_id must be 1 to 64 visible ASCII characters, found {job_id[:80]!r}")
    own = ("precision", "force_task_id", "override_settings_restore_afterwards")
    rest = {name: value for name, value in body.items() if name not in own}
    rest |= {name: fixed_seed(name, body.get(name)) for name in ("seed", "subseed")}
    return Wish({**rest, "override_settings": overrides}, checkpoint, keep, precision, job_id)


def checkpoint_of(settings: dict[str, Any]) -> str:
    """Take the model out of settings, "" if none is named. Raises RequestInvalid."""
    title, digest = (settings.pop(name, None) for name in ("sd_model_checkpoint", "sd_checkpoint_hash"))
    for value in (title, digest):
        if value is not None and not isinstance(value, str):
            raise RequestInvalid(f"sd_model_checkpoint must be the title, name or hash of a model, found {value!r}")
    # A client that sends back all options has both, of one model.
    if title and digest and digest[:10] not in title:
        raise RequestInvalid(f"sd_model_checkpoint {title!r} and sd_checkpoint_hash {digest!r} are two models")
    return title or digest or ""


def sized(body: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """The body with a size, by default the model's own; of a model that only a back end knows, the back end's default.

    Raises ResolutionUnsupported, RequestInvalid.
    """
    if not model.verified:
        return {name: value for name, value in body.items() if name not in ("width", "height") or value}
    width, height = _edge(body, "width", model), _edge(body, "height", model)
    check_size(model, width, height)
    return {**body, "width": width, "height": height}


def addressed(
    body: Mapping[str, Any], model: Model, url: str, models: ModelRegistry, nets: ControlNetRegistry
) -> dict[str, Any]:
    """The body with models and control nets as the back end at url calls them.

    Raises UnknownModel, ModelUnavailable, UnknownControlNet, ControlNetMismatch, ControlNetUnavailable.
    """
    changed = {**body, "override_settings": {**body["override_settings"], "sd_model_checkpoint": model.titles[url]}}
    for name in _MORE_MODELS:
        if body.get(name) in _NO_MODEL:
            continue
        other = models.usable(_text(body, name))
        if url not in other.titles:
            raise ModelUnavailable(other.name)
        changed[name] = other.titles[url]
    scripts = dict(_mapping(body, "alwayson_scripts"))
    for script, arguments in scripts.items():
        if script.lower() == "controlnet":
            units = arguments.get("args") if isinstance(arguments, Mapping) else None
            if not isinstance(units, list):
                raise RequestInvalid(f"alwayson_scripts.{script}.args must be a list of units")
            scripts[script] = {**arguments, "args": [_with_title(unit, model, url, nets) for unit in units]}
    if scripts:
        changed["alwayson_scripts"] = scripts
    return changed


def fixed_seed(name: str, seed: Any) -> int:
    """The seed, or a random one for -1, so that a repeat on another back end draws the same. Raises RequestInvalid."""
    if seed is None or seed == -1:
        return random.SystemRandom().randint(0, _MAX_SEED)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise RequestInvalid(f"{name} must be a whole number, found {seed!r}")
    return seed


def _with_title(unit: Any, model: Model, url: str, nets: ControlNetRegistry) -> Any:
    if not isinstance(unit, Mapping) or unit.get("enabled") is False:
        return unit
    wanted = unit.get("model")
    if wanted in _NO_MODEL:
        return unit
    net = nets.resolve(str(wanted), model)
    if url not in net.titles:
        raise ControlNetUnavailable(model.name, net.name)
    return {**unit, "model": net.titles[url]}


def _edge(body: Mapping[str, Any], name: str, model: Model) -> int:
    value = body.get(name)
    if value is None or value == 0:
        return model.spec.native_px
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestInvalid(f"{name} must be a whole number of pixels, found {value!r}")
    return value


def _mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RequestInvalid(f"{name} must be an object, found {value!r}")
    return value


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RequestInvalid(f"{name} must be text, found {value!r}")
    return value
