"""What follows when the program ends with an exit code; docs/exit-codes.md is normative.

The rules go into the Job, where the Job controller reads them; the local supervisor asks `failure_action`.
"""

from collections.abc import Mapping
from typing import Any, Final

from jobs.names import CONTAINER

# 64 to 69 the input is wrong, 78 another process carries out the run; trying again would not help.
FATAL_EXIT_CODES: Final = (64, 65, 66, 67, 68, 69, 78)
# Says only that another pod has ended, whose own exit counts.
PARTNER_LOST: Final = 76


def failure_rules(nodes: int = 1) -> list[dict[str, Any]]:
    """The rules of a podFailurePolicy. nodes: pods that train together."""
    rules: list[dict[str, Any]] = [
        # status is optional only from Kubernetes 1.35 on.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": _codes(*FATAL_EXIT_CODES)},
    ]
    if nodes > 1:
        rules.append({"action": "Ignore", "onExitCodes": _codes(PARTNER_LOST)})
    return rules


def failure_action(manifest: Mapping[str, Any], exit_code: int | None) -> str:
    """FailJob, Ignore or Count: the first rule on exit codes that matches decides."""
    for rule in manifest["spec"].get("podFailurePolicy", {}).get("rules", ()):
        condition = rule.get("onExitCodes")
        if condition and exit_code and (exit_code in condition["values"]) == (condition["operator"] == "In"):
            return str(rule["action"])
    return "Count"


def _codes(*codes: int) -> dict[str, Any]:
    return {"containerName": CONTAINER, "operator": "In", "values": list(codes)}
