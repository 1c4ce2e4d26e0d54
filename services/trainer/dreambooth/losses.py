"""Losses on their way from the device to the records, without making the device wait.

Reading a loss at once would stall a GPU in every step. On a GPU the number is copied in the background and read when
it has arrived, a few steps later; on a CPU it is there already. No step is left out, and the order is kept. The norm of
the step's gradients goes the same way: like the loss it tells whether training has left the finite numbers.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable

import torch

from dreambooth.errors import Diverged
from dreambooth.progress import StepFacts

_MAX_BEHIND = 32


class LossReader:
    """Hands each (facts, loss) to `report` in order of steps."""

    def __init__(self, report: Callable[[StepFacts, float], None]) -> None:
        self._report = report
        self._waiting: deque[tuple[StepFacts, torch.Tensor, torch.cuda.Event | None]] = deque()

    def add(
        self, facts: StepFacts, loss: torch.Tensor, of_each: torch.Tensor, gradient_norm: torch.Tensor | None = None
    ) -> None:
        """Take the loss of the newest step, the error of each of its pictures, as `facts.filenames`, and the norm of its
        gradients if it is known. loss, gradient_norm: scalars. Raises Diverged if a loss or norm that arrived is not finite."""
        norm = gradient_norm if gradient_norm is not None else loss.new_zeros(())
        numbers = torch.cat([loss.detach().reshape(1), norm.reshape(1), of_each])
        self._waiting.append((facts, *_sent_home(numbers)))
        while self._waiting and (_arrived(self._waiting[0][2]) or len(self._waiting) > _MAX_BEHIND):
            self._read_oldest()

    def finish(self) -> None:
        """Wait for all that is under way."""
        while self._waiting:
            self._read_oldest()

    def _read_oldest(self) -> None:
        facts, numbers, event = self._waiting.popleft()
        if event is not None:
            event.synchronize()
        loss, norm, *of_each = numbers.tolist()
        where = f"{facts.stage} step {facts.step}"
        if not math.isfinite(loss):
            guilty = [name for name, own in zip(facts.filenames, of_each, strict=True) if not math.isfinite(own)]
            raise _diverged(facts, f"the loss of {where} is {loss}", guilty or facts.filenames)
        if not math.isfinite(norm):
            raise _diverged(facts, f"the norm of the gradients of {where} is {norm}", facts.filenames)
        self._report(facts, loss)


def _diverged(facts: StepFacts, found: str, filenames: Iterable[str]) -> Diverged:
    rate = max(facts.rates.values())
    return Diverged(f"{found}, with {', '.join(filenames)}; try a lower learning rate than {rate:g}, or precision fp32")


def _sent_home(loss: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    if loss.device.type != "cuda":
        return loss, None
    number = torch.empty(loss.shape, dtype=loss.dtype, pin_memory=True)
    number.copy_(loss, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return number, event


def _arrived(event: torch.cuda.Event | None) -> bool:
    return event is None or bool(event.query())  # type: ignore[no-untyped-call]
