"""Prometheus metrics of training, from the records of active runs. One series of a gauge for each session that trains now."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trainer.events import ProgressRecord, Record, ResumePointRecord
from trainer.runs import RunState

_VALUES: Mapping[str, str] = {
    "loss": "Loss of the newest training step",
    "smoothed_loss": "Running mean of the loss, of the newest training step",
    "learning_rate": "Learning rate of the newest training step: of the UNet where it trains, else of the text encoder",
    "text_encoder_learning_rate": "Learning rate of the text encoder in the newest training step; 0 where it does not train",
    "images_per_second": "Images trained on in a second",
    "eta_seconds": "Expected time to the end of the run",
    "model_flops_utilization": "Arithmetic of the model over what the device could do, 0 to 1; 0 where the peak is unknown",
}
# From a small model on a GPU to a large one on a processor.
_STEP_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)


class TrainingMetrics:
    """What dashboards know of runs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._values = {
            name: Gauge(f"darkroom_training_{name}", doc, ["session"], registry=registry)
            for name, doc in _VALUES.items()
        }
        self._steps = Counter("darkroom_training_steps", "Training steps done", ["stage"], registry=registry)
        self._step_seconds = Histogram(
            "darkroom_training_step_seconds",
            "Time of a training step",
            ["stage"],
            buckets=_STEP_SECONDS,
            registry=registry,
        )
        self._data_wait = Counter(
            "darkroom_training_data_wait_seconds",
            "Time in which training waited for its data",
            ["stage"],
            registry=registry,
        )
        self._resume_points = Counter("darkroom_training_resume_points", "Resume points saved", registry=registry)
        self._save_stall = Counter(
            "darkroom_training_save_stall_seconds",
            "Time in which training stood still for resume points",
            registry=registry,
        )
        self._runs = Gauge(
            "darkroom_runs", "Runs by state; finished ones since the service started", ["state"], registry=registry
        )
        self.states([])

    def records(self, session: str, new: Iterable[Record]) -> None:
        """Count new steps and resume points; the newest step sets the gauges."""
        newest = None
        for record in new:
            if isinstance(record, ProgressRecord):
                newest = record
                self._count(record)
            elif isinstance(record, ResumePointRecord):
                self._resume_points.inc()
                self._save_stall.inc(max(record.stall_seconds, 0.0))
        if newest is not None:
            for name, gauge in self._values.items():
                gauge.labels(session).set(getattr(newest, name))

    def over(self, session: str) -> None:
        """End the series of a session: what its run did last is true no longer."""
        for gauge in self._values.values():
            gauge.remove(session)

    def states(self, states: Iterable[RunState]) -> None:
        """Set the number of runs in each state."""
        known = list(states)
        for state in RunState:
            self._runs.labels(state).set(known.count(state))

    def _count(self, step: ProgressRecord) -> None:
        self._steps.labels(step.stage).inc()
        if step.step_seconds > 0:  # older programs do not say it
            self._step_seconds.labels(step.stage).observe(step.step_seconds)
            self._data_wait.labels(step.stage).inc(max(step.data_wait_seconds, 0.0))
