"""Where a run stands: smoothed loss, images per second, time to the end. Turns steps into progress records.

`training` feeds it from the loop; the records travel through `records`. The clock is passed in.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from artifacts.records import rfc3339

SMOOTHING = 0.02
_RATE_STEPS = 50


@dataclass(frozen=True)
class StepFacts:
    """What is known of a step when it is issued. filenames: the images of its batch."""

    stage: str
    step: int
    num_steps: int
    learning_rate: float
    filenames: tuple[str, ...]


@dataclass
class Progress:
    """Follows one run. num_steps_after: steps of the stages behind the named one. clock: seconds, monotonic."""

    batch_size: int
    num_steps_after: dict[str, int]
    clock: Callable[[], float]
    first_loss: dict[str, float] = field(default_factory=dict)
    last_loss: dict[str, float] = field(default_factory=dict)
    smoothed_loss: dict[str, float] = field(default_factory=dict)
    _ends: deque[float] = field(default_factory=deque)
    _stage: str = ""

    def enter(self, stage: str) -> None:
        """A stage begins now: its first step is timed from here."""
        self._stage = stage
        self._ends = deque([self.clock()], maxlen=_RATE_STEPS + 1)

    def pause(self) -> Callable[[], None]:
        """Work that is no training begins; calling the result ends it. Its time does not count into the rate."""
        began = self.clock()

        def resume() -> None:
            away = self.clock() - began
            self._ends = deque((end + away for end in self._ends), maxlen=_RATE_STEPS + 1)

        return resume

    def record(self, facts: StepFacts, loss: float) -> dict[str, Any]:
        """The progress record of one step that has ended."""
        stage = facts.stage
        before = self.smoothed_loss.get(stage, loss)
        self.first_loss.setdefault(stage, loss)
        self.last_loss[stage] = loss
        self.smoothed_loss[stage] = before + SMOOTHING * (loss - before)
        self._ends.append(self.clock())
        seconds_a_step = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        remaining = facts.num_steps - facts.step + self.num_steps_after[stage]
        return {
            "kind": "progress",
            "stage": stage,
            "step": facts.step,
            "num_steps": facts.num_steps,
            "loss": loss,
            "smoothed_loss": self.smoothed_loss[stage],
            "learning_rate": facts.learning_rate,
            "images_per_second": self.batch_size / max(seconds_a_step, 1e-9),
            "eta_seconds": round(remaining * seconds_a_step, 1),
            "time": now(),
        }


def now() -> str:
    """This moment as records write it."""
    return rfc3339(datetime.now(UTC))
