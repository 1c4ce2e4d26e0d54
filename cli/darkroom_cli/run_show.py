"""One run as `darkroom runs show` prints it: facts, a table of its stages, its settings, a picture of the losses."""

import math
import sys
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from darkroom.trainer.v1 import training_pb2 as pb
from google.protobuf.json_format import MessageToDict
from rich.console import Console

from darkroom_cli import plot_terminal
from darkroom_cli.clients import Clients
from darkroom_cli.curves import Curve, StageCurve
from darkroom_cli.output import print_message, print_table
from darkroom_cli.plotting import Line
from darkroom_cli.run_words import FINAL, changed_settings, clock, duration, lines, short_name, stage_of
from darkroom_cli.watching import follow

_STAGE_COLUMNS = ("Stage", "Steps", "Rate", "First loss", "Last loss", "Smoothed", "Images/s", "Time")
_PICTURE_ROWS = 14
_PICTURE_COLUMNS = 100


@dataclass(frozen=True)
class Found:
    """A run and everything it has recorded so far."""

    run: pb.Run
    curve: Curve

    @property
    def name(self) -> str:
        """SESSION/RUN."""
        return short_name(self.run.name)


def read(clients: Clients, name: str) -> Found:
    """The run and its whole curve up to now; does not wait for one that goes on. Raises RpcError."""
    run, curve = clients.training.GetRun(pb.GetRunRequest(name=name)), Curve()
    finished = run.state in FINAL
    if not finished and not run.HasField("progress"):
        return Found(run, curve)
    newest = run.progress.stage, run.progress.step
    for event in follow(lambda: clients.training.WatchRun(pb.WatchRunRequest(name=name))):
        if event.HasField("run"):
            run = event.run
        elif event.HasField("progress"):
            curve.add(event.progress)
            if not finished and (event.progress.stage, event.progress.step) == newest:
                break
    return Found(run, curve)


def print_run(found: Found) -> None:
    """Everything for a person, on stdout."""
    print_message(found.run, as_json=False, lines=[*lines(found.run), *_more_lines(found.run)])
    print()
    print_table(_STAGE_COLUMNS, [_row(stage) for stage in found.curve.stages.values()], as_json=False)
    print()
    print("settings that are not the defaults")
    changed = changed_settings(found.run.recipe)
    print_message(found.run.recipe, as_json=False, lines=[(f"  {name}", value) for name, value in changed.items()])
    print_picture([found])


def as_json(found: Found) -> dict[str, Any]:
    """The run as the service says it, and beside it `stages` with every loss."""
    record: dict[str, Any] = MessageToDict(
        found.run, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {**record, "stages": [stage_as_json(stage) for stage in found.curve.stages.values()]}


def stage_as_json(stage: StageCurve) -> dict[str, Any]:
    """Steps, losses and times of one stage. A loss that is no finite number is a string, as in protobuf's JSON."""
    points = stage.points
    return {
        "stage": pb.Stage.Name(pb.Stage.ValueType(stage.stage)),
        "num_steps": stage.num_steps,
        "learning_rate": max(point.learning_rate for point in points),
        "images_per_second": stage.images_per_second,
        "seconds": stage.seconds,
        "smoothed_loss": _number(points[-1].smoothed),
        "steps": [point.step for point in points],
        "losses": [_number(point.loss) for point in points],
    }


def print_picture(found: list[Found]) -> None:
    """The curves of one or two runs; nothing if there is no step yet."""
    drawn = [Line(each.name, each.curve) for each in found]
    if not any(line.curve.stages for line in drawn):
        return
    to_terminal = sys.stdout.isatty()
    out = Console(highlight=False, width=None if to_terminal else _PICTURE_COLUMNS)
    coloured = to_terminal and out.color_system is not None
    width = max(30, min(out.width, _PICTURE_COLUMNS))
    names = [line.name for line in drawn]
    out.print()
    for part in (plot_terminal.legend(names, coloured), plot_terminal.draw(drawn, width, _PICTURE_ROWS, coloured)):
        out.print(part, soft_wrap=True)


def _more_lines(run: pb.Run) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = [
        ("created", f"{run.create_time.ToDatetime(UTC):%Y-%m-%d %H:%M:%S} UTC"),
        ("time", clock(duration(run))),
        ("attempts", run.num_attempts),
    ]
    if run.HasField("exit_code"):
        found.append(("exit code", run.exit_code))
    return found


def _row(stage: StageCurve) -> tuple[object, ...]:
    points = stage.points
    return (
        stage_of(stage.stage),
        f"{points[-1].step}/{stage.num_steps}",
        f"{max(point.learning_rate for point in points):g}",
        f"{points[0].loss:.4f}",
        f"{points[-1].loss:.4f}",
        f"{points[-1].smoothed:.4f}",
        f"{stage.images_per_second:.1f}",
        clock(stage.seconds),
    )


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
