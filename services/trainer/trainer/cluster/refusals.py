"""From a Status of the API to the error it means. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from trainer.cluster.errors import (
    Changed,
    ClusterError,
    ClusterForbidden,
    ClusterUnavailable,
    Expired,
    JobInvalid,
    JobRefused,
    Missing,
    QuotaExceeded,
    Taken,
)

_STRICT = re.compile(r'(unknown|duplicate) field "([^"]+)"')
_BY_RULES = ("admission webhook", "ValidatingAdmissionPolicy", "being terminated")


def refusal(code: int, status: Mapping[str, Any], what: str) -> ClusterError:
    """code: of HTTP. status: the answer's body, {} if it was no Status. what: was asked for, such as "create Job run-1"."""
    message = str(status.get("message") or f"HTTP status {code}")
    match code:
        case 400 | 422:
            return _invalid(status, message)
        case 401:
            return ClusterForbidden(f"it does not know who asks ({message})")
        case 403:
            return _forbidden(message)
        case 404:
            return JobRefused(message) if _names_namespace(status) else Missing(message)
        case 409 if status.get("reason") == "AlreadyExists":
            return Taken(message, "object is being deleted" in message)
        case 410:
            return Expired(message)
        case 409:
            return Changed(what, message)
        case 429 | 500 | 502 | 503 | 504:
            return ClusterUnavailable(what, message)
        case _:
            return JobRefused(message)


def _forbidden(message: str) -> ClusterError:
    if "exceeded quota" in message:
        return QuotaExceeded(message[message.index("exceeded quota") :])
    if any(rule in message for rule in _BY_RULES):
        return JobRefused(message)
    return ClusterForbidden(message)


def _invalid(status: Mapping[str, Any], message: str) -> ClusterError:
    if any(rule in message for rule in _BY_RULES):
        return JobRefused(message)
    causes = status.get("details", {}).get("causes") or ()
    problems = [(f"job.{cause['field']}", str(cause.get("message", message))) for cause in causes if "field" in cause]
    problems += [(f"job.{path}", f"is a field {kind} to this cluster") for kind, path in _STRICT.findall(message)]
    return JobInvalid(*problems) if problems else JobInvalid(("job", message))


def _names_namespace(status: Mapping[str, Any]) -> bool:
    return bool(status.get("details", {}).get("kind") == "namespaces")
