"""Named moments at which `torture` kills a training for certain; its random ones may miss them.

The process kills itself right before a call that only that moment makes.
"""

import importlib
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Moment:
    """Before a call of `function`, "module:function" or "module:class.method". is_now: by how many calls there were, this
    one included, and its first argument."""

    function: str
    is_now: Callable[[int, Any], bool]


def _call(number: int) -> Callable[[int, Any], bool]:
    return lambda calls, first: calls == number


MOMENTS: Final[Mapping[str, Moment]] = {
    "drawing the third class image": Moment("dreambooth.samples:draw", _call(3)),
    "inside an accumulation": Moment("dreambooth.loss:of_batch", _call(5)),
    "weights are new, the step is not counted": Moment("dreambooth.state:StageState.advance", _call(2)),
    "copying the state": Moment("dreambooth.tensor_file:write", _call(2)),
    "uploading a resume point": Moment("dreambooth.resume_points:ResumePoints._put_manifest", _call(1)),
    "listing a resume point": Moment("dreambooth.lease:Lease.publish", _call(1)),
    "between the stages": Moment("dreambooth.work:Work._leave", _call(1)),
    "in the last step": Moment(
        "dreambooth.state:StageState.advance",
        lambda calls, state: state.stage.name == "unet" and state.step + 1 == state.stage.num_steps,
    ),
    "writing the checkpoint": Moment("dreambooth.publish:publish", _call(1)),
}


def arm(name: str) -> None:
    """Let this process be killed by SIGKILL at a moment."""
    moment = MOMENTS[name]
    module, _, path = moment.function.partition(":")
    *owners, attribute = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, calls = getattr(owner, attribute), 0

    def deadly(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if moment.is_now(calls, arguments[0] if arguments else None):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    setattr(owner, attribute, deadly)
