"""What a person sees of a run while it works: on a terminal a live bar for each stage, in a pipe plain lines.

Everything goes to stderr. `watch_run` feeds it from WatchRun; `commands.train`, `commands.runs` and the demo call that.
"""

import math
import time
from contextlib import ExitStack
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self

from darkroom.trainer.v1 import training_pb2 as pb
from rich.console import Group
from rich.live import Live
from rich.progress import TaskID
from rich.text import Text

from darkroom_cli.clients import Clients
from darkroom_cli.curves import Curve, StageCurve
from darkroom_cli.output import console, progress_bar
from darkroom_cli.run_words import stage_of
from darkroom_cli.watching import follow

# In a pipe a stage is told in this many lines, however many steps it has.
_PIPE_LINES = 20
_REFRESH_SECONDS = 0.1


class RunView(Protocol):
    """What `watch_run` tells of; used in a `with` block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def step(self, progress: pb.Progress, stage: StageCurve) -> None:
        """A step was done; stage is its curve, this step included."""

    def sample(self, sample: pb.Sample) -> None:
        """A sample image was drawn."""

    def message(self, text: str) -> None:
        """A line for a person."""


class LiveView:
    """A bar with a sparkline of the loss for each stage, and below them one line with the newest sample image.

    The bars go when the run is over; the line of the sample image stays.
    """

    def __init__(self) -> None:
        self._bars = progress_bar()
        self._tasks: dict[int, TaskID] = {}
        self._sample = Text(no_wrap=True, overflow="ellipsis")
        self._drawn = -math.inf
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._live = Live(Group(self._bars, self._sample), console=console, transient=True)
        self._stack.enter_context(self._live)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._sample.plain:
            console.print(self._sample, soft_wrap=True)

    def step(self, progress: pb.Progress, stage: StageCurve) -> None:
        """Move the bar; not oftener than an eye can see, because a late watcher gets thousands of steps at once."""
        now = time.monotonic()
        if now - self._drawn < _REFRESH_SECONDS and progress.step < progress.num_steps:
            return
        self._drawn = now
        if progress.stage not in self._tasks:
            name = stage_of(progress.stage)
            self._tasks[progress.stage] = self._bars.add_task(name, total=progress.num_steps, note="")
        note = f"{stage.spark()} {_numbers(progress)}"
        self._bars.update(self._tasks[progress.stage], completed=progress.step, total=progress.num_steps, note=note)

    def sample(self, sample: pb.Sample) -> None:
        """Name it in the line below the bars, in the place of the one before."""
        self._sample.plain = _sample_line(sample)

    def message(self, text: str) -> None:
        """Print it above the bars."""
        console.print(text, markup=False, soft_wrap=True)


class PlainView:
    """Lines without control characters: some steps of each stage, every sample image and every message."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def step(self, progress: pb.Progress, stage: StageCurve) -> None:
        """A line for the first step, the last, and some between, chosen by their number alone."""
        step, last = progress.step, progress.num_steps
        part = step * _PIPE_LINES // last if last else 0
        if step in (1, last) or part > (step - 1) * _PIPE_LINES // last:
            self.message(f"{stage_of(progress.stage)} step {step} of {last}: {_numbers(progress)}")

    def sample(self, sample: pb.Sample) -> None:
        """A line with its key."""
        self.message(_sample_line(sample))

    def message(self, text: str) -> None:
        """The line itself."""
        console.print(text, markup=False, soft_wrap=True)


def watch_run(clients: Clients, name: str, losses: list[float] | None = None) -> pb.Run:
    """Follow a run to its end; returns it as it ended. losses, if given, receives the loss of each step.

    A stream that breaks is opened again and tells everything once more; steps and samples are shown and counted once.
    """
    run, curve, samples = pb.Run(name=name), Curve(), set[str]()
    view: RunView = LiveView() if console.is_terminal else PlainView()
    with view:
        for event in follow(lambda: clients.training.WatchRun(pb.WatchRunRequest(name=name))):
            kind = event.WhichOneof("event")
            if kind == "progress":
                is_new = not curve.has(event.progress)
                stage = curve.add(event.progress)
                if is_new:
                    view.step(event.progress, stage)
            elif kind == "sample" and event.sample.object not in samples:
                samples.add(event.sample.object)
                view.sample(event.sample)
            elif kind == "message":
                view.message(event.message)
            elif kind == "resume_point":
                point = event.resume_point
                view.message(f"resume point after step {point.step} of {stage_of(point.stage)}")
            elif kind == "run":
                run = event.run
    if losses is not None:
        losses.extend(curve.losses())
    return run


def _numbers(progress: pb.Progress) -> str:
    left = timedelta(seconds=progress.eta.seconds)
    return f"loss {progress.smoothed_loss:.3f}, {left} left, {progress.images_per_second:.1f} images/s"


def _sample_line(sample: pb.Sample) -> str:
    return f"sample after step {sample.step} of {stage_of(sample.stage)}: {sample.object}"
