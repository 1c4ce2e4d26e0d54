"""Where a run stands: smoothed loss, images per second, time to the end. Turns steps into progress records.

`training` feeds it from the loop; the records travel through `records`. The clock is passed in.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from artifacts.records import rfc3339

from dreambooth.recipe import TEXT_ENCODER, UNET

SMOOTHING = 0.02
_RATE_STEPS = 50


@dataclass(frozen=True)
class StepFacts:
    """What is known of a step when it is issued. rates: learning rate of each module that trains. filenames: the images
    of the batches of all processes. seconds: of the whole step, of which wait_seconds were spent on making its examples."""

    stage: str
    step: int
    num_steps: int
    rates: Mapping[str, float]
    filenames: tuple[str, ...]
    seconds: float = 0.0
    wait_seconds: float = 0.0


@dataclass
class Progress:
    """Follows one run. images_per_step: of all processes. num_steps_after: steps of the stages behind the named one.
    flops_share: arithmetic of a step over what the device does in a second, by stage; 0 where that is unknown.
    clock: seconds, monotonic."""

    images_per_step: int
    num_steps_after: dict[str, int]
    clock: Callable[[], float]
    flops_share: Mapping[str, float] = field(default_factory=dict)
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
            "learning_rate": facts.rates.get(UNET, facts.rates.get(TEXT_ENCODER, 0.0)),
            "text_encoder_learning_rate": facts.rates.get(TEXT_ENCODER, 0.0),
            "images_per_second": self.images_per_step / max(seconds_a_step, 1e-9),
            "step_seconds": round(facts.seconds, 6),
            "data_wait_seconds": round(facts.wait_seconds, 6),
            "model_flops_utilization": round(self.flops_share.get(stage, 0.0) / max(seconds_a_step, 1e-9), 4),
            "eta_seconds": round(remaining * seconds_a_step, 1),
            "time": now(),
        }

    def state(self) -> dict[str, Any]:
        """What a resume point keeps, so that the curves go on as if nothing had been."""
        return {"first_loss": self.first_loss, "last_loss": self.last_loss, "smoothed_loss": self.smoothed_loss}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.first_loss, self.last_loss = dict(state["first_loss"]), dict(state["last_loss"])
        self.smoothed_loss = dict(state["smoothed_loss"])


def now() -> str:
    """This moment as records write it."""
    return rfc3339(datetime.now(UTC))
