"""What the gateway refuses, in words that name both sides. `server` and `http_errors` give each a status.

GatewayError
├── UnknownName                                          there is no such thing; the nearest are named
│   └── UnknownModel, UnknownSampler, UnknownScheduler, UnknownScript, UnknownControlNet, UnknownLora
├── UnknownJob
├── RequestInvalid                                       a field cannot be understood
├── Incompatible                                         two things do not fit each other
│   ├── ResolutionUnsupported, PrecisionUnsupported, ControlNetMismatch, LoraMismatch
│   ├── NoBackendFits                                    each back end that has the model lacks something else
│   └── ModelUnavailable, ControlNetUnavailable, LoraUnavailable   known, but no back end has the weights
├── QueueFull, NoBackend, BackendAway, Stopping          passes: the same request may work later
├── BackendRefused, BackendFailed                        a back end's own answer: 4xx, and everything else
└── Cancelled
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

# A back end may answer with a page of HTML.
_MAX_DETAIL_CHARACTERS: Final = 500


class GatewayError(Exception):
    """Root of the gateway's errors."""


class UnknownName(GatewayError):
    """There is nothing of this kind and name. Fields: name, known; where: which back ends were asked, "" for all."""

    kind = ""

    def __init__(self, name: str, known: Iterable[str], where: str = "") -> None:
        names = sorted(set(known))
        by_case = {candidate.lower(): candidate for candidate in names}
        near = [by_case[match] for match in get_close_matches(name.lower(), by_case, n=3, cutoff=0.4)] or names[:5]
        hint = f"did you mean {', '.join(near)}?" if near else "there is none at all"
        super().__init__(f"unknown {self.kind} {name!r}{where and f' on {where}'}; {hint}")
        self.name = name
        self.known = frozenset(names)


class UnknownModel(UnknownName):
    """No model has this name, title or hash."""

    kind = "model"


class UnknownSampler(UnknownName):
    """No back end that has the model has this sampler."""

    kind = "sampler"


class UnknownScheduler(UnknownName):
    """No back end that has the model and the sampler has this schedule."""

    kind = "scheduler"


class UnknownScript(UnknownName):
    """No back end that has the model has this script."""

    kind = "script"


class UnknownControlNet(UnknownName):
    """No control net has this name or kind."""

    kind = "control net"


class UnknownLora(UnknownName):
    """No LoRA has this name or alias."""

    kind = "LoRA"


class UnknownJob(GatewayError):
    """No generation had this id. Field: job_id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no generation with id {job_id!r} is known")
        self.job_id = job_id


class RequestInvalid(GatewayError):
    """A field of the request cannot be understood."""


class Incompatible(GatewayError):
    """Two things do not fit each other."""


class ResolutionUnsupported(Incompatible):
    """The model cannot draw this size. Fields: model, width_px, height_px."""

    def __init__(self, model: str, width_px: int, height_px: int, rule: str) -> None:
        super().__init__(f"model {model} cannot draw {width_px}x{height_px} pixels: {rule}")
        self.model = model
        self.width_px = width_px
        self.height_px = height_px


class PrecisionUnsupported(Incompatible):
    """The model, or every back end that has it, does not run in this precision. Fields: model, precision."""

    def __init__(self, model: str, precision: str, possible: Iterable[str]) -> None:
        super().__init__(
            f"model {model} does not run in {precision}; possible: {', '.join(sorted(possible)) or 'none'}"
        )
        self.model = model
        self.precision = precision


class ControlNetMismatch(Incompatible):
    """The control net was made for another model. Fields: model, control_net."""

    def __init__(self, model: str, control_net: str, why: str) -> None:
        super().__init__(f"control net {control_net} does not fit model {model}: {why}")
        self.model = model
        self.control_net = control_net


class LoraMismatch(Incompatible):
    """The LoRA was trained for another model. Fields: model, lora."""

    def __init__(self, model: str, lora: str, why: str) -> None:
        super().__init__(f"LoRA {lora} does not fit model {model}: {why}")
        self.model = model
        self.lora = lora


class ModelUnavailable(Incompatible):
    """The model is known, but no back end has its weights. Field: model."""

    def __init__(self, model: str) -> None:
        super().__init__(f"model {model} is known, but no back end has its weights; import it first")
        self.model = model


class ControlNetUnavailable(Incompatible):
    """The control net fits, but no back end that has the model has its weights. Fields: model, control_net."""

    def __init__(self, model: str, control_net: str) -> None:
        super().__init__(
            f"control net {control_net} fits model {model}, but no back end that has the model has its weights; "
            "install them there"
        )
        self.model = model
        self.control_net = control_net


class LoraUnavailable(Incompatible):
    """The LoRA fits, but a back end that has the model has it not. Fields: model, lora."""

    def __init__(self, model: str, lora: str) -> None:
        super().__init__(f"LoRA {lora} is known, but no back end that has model {model} has it; install it there")
        self.model = model
        self.lora = lora


class NoBackendFits(Incompatible):
    """Every back end that has the model lacks something that the request needs. Field: model."""

    def __init__(self, model: str, reasons: Mapping[str, Exception]) -> None:
        lacks = "; ".join(f"{url}: {reason}" for url, reason in reasons.items())
        super().__init__(f"no back end that has model {model} can do all of the request; {lacks}")
        self.model = model


class QueueFull(GatewayError):
    """Too many generations wait. Fields: num_waiting, limit."""

    def __init__(self, num_waiting: int, limit: int) -> None:
        super().__init__(f"{num_waiting} generations wait already and the queue takes {limit}; try again later")
        self.num_waiting = num_waiting
        self.limit = limit


class NoBackend(GatewayError):
    """No back end answers."""

    def __init__(self, urls: Iterable[str]) -> None:
        super().__init__(f"no back end answers; configured: {', '.join(urls) or 'none (set DARKROOM_ENGINES)'}")


class BackendAway(GatewayError):
    """A back end does not answer, or says that it cannot now. Fields: url, timed_out (it may only be busy)."""

    def __init__(self, url: str, why: str, timed_out: bool = False) -> None:
        super().__init__(f"back end {url} does not answer: {why}")
        self.url = url
        self.timed_out = timed_out


class Stopping(GatewayError):
    """The gateway stops; what has not ended is given up."""

    def __init__(self) -> None:
        super().__init__("the gateway is stopping; send the request again when it is back")


class BackendRefused(GatewayError):
    """A back end answered 4xx: the request is wrong in a way that only it could see. Fields: status, payload (its JSON)."""

    def __init__(self, status: int, payload: object) -> None:
        super().__init__(_detail(payload))
        self.status = status
        self.payload = payload


class BackendFailed(GatewayError):
    """A back end broke on the request, or its answer cannot be understood. Fields: url, status (HTTP)."""

    def __init__(self, url: str, status: int, payload: object) -> None:
        super().__init__(f"back end {url} failed with status {status}: {_detail(payload)}")
        self.url = url
        self.status = status


def _detail(payload: object) -> str:
    if isinstance(payload, dict):
        payload = payload.get("detail") or payload.get("errors") or payload.get("error") or payload
    return str(payload)[:_MAX_DETAIL_CHARACTERS]


class Cancelled(GatewayError):
    """The generation was cancelled. Field: job_id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"generation {job_id} was cancelled")
        self.job_id = job_id
