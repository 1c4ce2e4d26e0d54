"""How far the running generation is: written by the worker thread at every step, read by the routes at any time.

`generate.py` writes, `generation_routes.py` reads. The latents of the preview are opaque here; whoever asks decodes them.
"""

import threading
import time
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Snapshot:
    """The state of the engine at one moment; all zero while idle.

    fraction: 0 to 1 of the whole request. job_no of job_count batches are done. latents: those of the current batch.
    """

    task_id: str = ""
    job_count: int = 0
    job_no: int = 0
    step: int = 0
    num_steps: int = 0
    started_at: float = 0.0
    job_timestamp: str = "0"
    interrupted: bool = False
    skipped: bool = False
    latents: Any = None
    model: Any = None
    preview_id: int = 0

    @property
    def fraction(self) -> float:
        """Share of the work that is done, as A1111 counts: at least 0.01 once it has begun."""
        if not self.job_count:
            return 0.0
        steps = self.step / self.num_steps if self.num_steps else 0.0
        return min(0.01 + (self.job_no + steps) / self.job_count, 1.0)

    def eta_seconds(self, now: float) -> float:
        """Expected time to the end, from the time so far."""
        if not self.fraction:
            return 0.0
        elapsed = now - self.started_at
        return max(elapsed / self.fraction - elapsed, 0.0)


class Progress:
    """The one current snapshot, and the wishes to interrupt or skip."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = Snapshot()

    @property
    def now(self) -> Snapshot:
        """The snapshot of this moment."""
        with self._lock:
            return self._now

    def begin(self, task_id: str, job_count: int) -> None:
        """A generation of job_count batches begins."""
        timestamp = time.strftime("%Y%m%d%H%M%S")
        with self._lock:
            self._now = Snapshot(
                task_id=task_id, job_count=job_count, started_at=time.monotonic(), job_timestamp=timestamp
            )

    def begin_batch(self, job_no: int, num_steps: int, model: Any) -> None:
        """Batch job_no (from 0) of the generation begins."""
        self._change(job_no=job_no, step=0, num_steps=num_steps, skipped=False, model=model, latents=None)

    def step_done(self, step: int, latents: Any) -> None:
        """Step `step` (from 1) is done; latents (B, C, H, W) is the picture as the model sees it now."""
        self._change(step=step, latents=latents, preview_id=self.now.preview_id + 1)

    def end(self) -> None:
        """Back to idle."""
        with self._lock:
            self._now = Snapshot()

    def interrupt(self, task_id: str = "") -> bool:
        """Ask the running generation (only that of task_id, if given) to stop after its step; False if none runs."""
        return self._wish(task_id, interrupted=True)

    def skip(self) -> bool:
        """Ask to end the running batch after its step and go on with the next; False if none runs."""
        return self._wish("", skipped=True)

    @property
    def should_stop(self) -> bool:
        """Whether the current batch ends after this step."""
        now = self.now
        return now.interrupted or now.skipped

    def _wish(self, task_id: str, **changes: Any) -> bool:
        with self._lock:
            if not self._now.job_count or task_id not in ("", self._now.task_id):
                return False
            self._now = replace(self._now, **changes)
            return True

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self._now = replace(self._now, **changes)
