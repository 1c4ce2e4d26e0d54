"""Prometheus metrics of training, from the progress records of active runs. One series for each session that trains now."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from trainer.events import ProgressRecord
from trainer.runs import RunState

_VALUES: Mapping[str, str] = {
    "loss": "Loss of the newest training step",
    "learning_rate": "Learning rate of the newest training step",
    "images_per_second": "Images trained on in a second",
    "eta_seconds": "Expected time to the end of the run",
}


class TrainingMetrics:
    """What dashboards know of runs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._values = {
            name: Gauge(f"darkroom_training_{name}", doc, ["session"], registry=registry)
            for name, doc in _VALUES.items()
        }
        self._steps = Counter("darkroom_training_steps", "Training steps done", ["stage"], registry=registry)
        self._runs = Gauge(
            "darkroom_runs", "Runs by state; finished ones since the service started", ["state"], registry=registry
        )
        self.states([])

    def progress(self, session: str, steps: Iterable[ProgressRecord]) -> None:
        """Count new steps; the newest sets the gauges."""
        newest = None
        for newest in steps:
            self._steps.labels(newest.stage).inc()
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
