"""Every way a request can fail, with its HTTP status; `app.py` turns them into A1111's error JSON.

EngineError
  RequestInvalid       422  a field has a value that cannot be
    Unsupported        422  A1111 knows it, this engine does not do it
    UnknownName        422  a sampler, model, script ... that does not exist; names the closest ones
    ImageInvalid       422  a picture that cannot be read or is too large
    ResolutionRefused  422  the model cannot draw at this size
    LoraMismatch       422  the LoRA was trained for another model
  InitImageMissing     404  img2img without a picture (A1111's status)
  BodyTooLarge         413
  ModelBroken          500  the weights cannot be loaded; the model before stays
  NotFinite            500  the model drew numbers that are no picture
  NotReady             503  starting or stopping; try again
  QueueFull            503  try again
  StoreDown            503  the bucket does not answer; try again
  Cancelled            499  the client has gone
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar, Final

_FEW: Final = 5
_MANY: Final = 40


class EngineError(Exception):
    """Root of the engine's errors. `retry_seconds` is set where repeating the request may help."""

    status: ClassVar[int] = 500
    retry_seconds: ClassVar[int | None] = None


class RequestInvalid(EngineError):
    """The field `field` cannot have this value."""

    status = 422

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        super().__init__(f"{field}: {problem}")


class Unsupported(RequestInvalid):
    """The request asks for something that A1111 has and this engine has not."""

    def __init__(self, field: str, found: object, advice: str) -> None:
        super().__init__(field, f"found {_short(found)}, but this engine does not support it; {advice}")


class UnknownName(RequestInvalid):
    """No `kind` of this name exists. The message names the closest ones, and all if they are few or nothing is close."""

    def __init__(self, field: str, kind: str, name: str, existing: Iterable[str]) -> None:
        self.name = name
        names = sorted(set(existing))
        by_lower = {candidate.lower(): candidate for candidate in names}
        near = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
        hints = [f"closest: {', '.join(near)}"] if near else []
        if not names:
            hints = [f"there is no {kind} at all"]
        elif not near or len(names) <= _FEW:
            hints.append(f"there are: {', '.join(names[:_MANY])}")
        super().__init__(field, f"{kind} {name!r} not found; {'; '.join(hints)}")


class ImageInvalid(RequestInvalid):
    """The picture in `field` cannot be used."""


class ResolutionRefused(RequestInvalid):
    """The model cannot draw pictures of this size."""

    def __init__(self, field: str, size: str, model: str, rule: str) -> None:
        super().__init__(field, f"found {size}, but model {model!r} draws {rule}")


class LoraMismatch(RequestInvalid):
    """The LoRA does not fit the model: another architecture, or the same one in another width."""

    def __init__(self, lora: str, family: str, base_model: str, model: str, why: str) -> None:
        base = base_model and f", trained on {base_model!r}"
        super().__init__(
            "prompt", f"LoRA {lora!r} ({family or 'unknown architecture'}{base}) does not fit model {model!r}: {why}"
        )


class InitImageMissing(EngineError):
    """img2img without init_images."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Init image not found: send at least one base64 picture in init_images")


class BodyTooLarge(EngineError):
    """The request body is over the limit."""

    status = 413

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the request is larger than {limit_bytes} bytes (DARKROOM_MAX_MESSAGE_BYTES); send less")


class ModelBroken(EngineError):
    """The weights of a model, or of what `kind` says, cannot be loaded. The model that was current stays current."""

    def __init__(self, model: str, reason: str, kind: str = "model") -> None:
        super().__init__(f"{kind} {model!r} cannot be loaded: {reason}")


class NotFinite(EngineError):
    """The model drew NaN or infinite numbers, as some do in half precision."""

    def __init__(self, model: str, precision: str) -> None:
        super().__init__(f"model {model!r} drew numbers that are not finite in {precision}; try another precision")


class NotReady(EngineError):
    """The engine is starting or stopping."""

    status = 503
    retry_seconds = 2

    def __init__(self, state: str) -> None:
        super().__init__(f"the engine is {state}; try again in {self.retry_seconds} seconds")


class QueueFull(EngineError):
    """Too many requests wait."""

    status = 503
    retry_seconds = 10

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests are waiting, which is the limit (DARKROOM_MAX_QUEUE); try again later")


class StoreDown(EngineError):
    """The bucket is needed and does not answer."""

    status = 503
    retry_seconds = 5


class Cancelled(EngineError):
    """The client went away before its pictures were done."""

    status = 499

    def __init__(self) -> None:
        super().__init__("the client closed the connection; its generation was dropped")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
