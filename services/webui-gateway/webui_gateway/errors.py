"""What the gateway refuses, in words that name both sides. `server` and `http_errors` give each a status.

GatewayError
├── UnknownModel, UnknownSampler, UnknownControlNet, UnknownJob     there is no such thing; the nearest are named
├── RequestInvalid                                                  a field cannot be understood
├── Incompatible                                                    two things do not fit each other
│   ├── ResolutionUnsupported, PrecisionUnsupported, ControlNetMismatch, ModelUnavailable
└── QueueFull, NoBackend, BackendFailed                             the other side; the first two pass
"""

from collections.abc import Iterable
from difflib import get_close_matches


class GatewayError(Exception):
    """Root of the gateway's errors."""


class _Unknown(GatewayError):
    kind = ""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(set(known))
        near = get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
        hint = f"did you mean {', '.join(near)}?" if near else "there is none at all"
        super().__init__(f"unknown {self.kind} {name!r}; {hint}")
        self.name = name


class UnknownModel(_Unknown):
    """No model has this name, title or hash."""

    kind = "model"


class UnknownSampler(_Unknown):
    """No back end has this sampler."""

    kind = "sampler"


class UnknownControlNet(_Unknown):
    """No control net has this name or kind."""

    kind = "control net"


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


class ModelUnavailable(Incompatible):
    """The model is known, but no back end has its weights. Field: model."""

    def __init__(self, model: str) -> None:
        super().__init__(f"model {model} is known, but no back end has its weights; import it first")
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


class BackendFailed(GatewayError):
    """A back end refused or broke. Fields: status (HTTP), payload (its JSON, if it was JSON)."""

    def __init__(self, url: str, status: int, payload: object) -> None:
        detail = payload.get("detail") or payload.get("errors") if isinstance(payload, dict) else payload
        super().__init__(str(detail) if status < 500 else f"back end {url} answered {status}: {detail}")
        self.status = status
        self.payload = payload


class Cancelled(GatewayError):
    """The generation was cancelled. Field: job_id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"generation {job_id} was cancelled")
        self.job_id = job_id
