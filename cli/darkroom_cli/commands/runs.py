"""`darkroom runs`: list, watch, show, compare, cancel, suspend and resume trainings. `darkroom run` is the same."""

from pathlib import Path
from typing import Annotated

import typer
from darkroom.trainer.v1 import training_pb2 as pb

from darkroom_cli import run_compare, run_show, run_words
from darkroom_cli.clients import Clients, connect
from darkroom_cli.commands.session import check_session
from darkroom_cli.output import (
    JsonFlag,
    UsageProblem,
    console,
    print_error,
    print_json,
    print_message,
    print_table,
    readable_errors,
)
from darkroom_cli.plot_png import save as save_png
from darkroom_cli.plotting import Line
from darkroom_cli.run_view import watch_run

runs_app = typer.Typer(no_args_is_help=True, help="Runs: trainings of sessions. `darkroom run` does the same.")


def _check_run(name: str) -> str:
    """The resource name of "SESSION/RUN". Raises typer.BadParameter."""
    session, slash, run = name.removeprefix("sessions/").replace("/runs/", "/", 1).partition("/")
    if not slash or not run or "/" in run:
        raise typer.BadParameter(f"{name!r} is no run; write SESSION/RUN as `darkroom runs list` prints it")
    return f"sessions/{check_session(session)}/runs/{run}"


def _check_session_or_all(name: str) -> str:
    return name if name == "-" else check_session(name)


_RUN_HELP = "SESSION/RUN, as `darkroom runs list` prints it."
RunName = Annotated[str, typer.Argument(help=_RUN_HELP, callback=_check_run)]
PngFile = Annotated[Path | None, typer.Option("--png", help="Write the curve as a PNG picture to this file.")]


@runs_app.command("list")
def list_runs(
    session: Annotated[
        str, typer.Argument(help="Only of this session; '-' stands for all.", callback=_check_session_or_all)
    ] = "-",
    as_json: JsonFlag = False,
) -> None:
    """List runs, newest first."""
    with readable_errors(), connect() as clients:
        runs: list[pb.Run] = []
        token = ""
        while True:
            page = clients.training.ListRuns(pb.ListRunsRequest(parent=f"sessions/{session}", page_token=token))
            runs += page.runs
            token = page.next_page_token
            if not token:
                break
        rows = [
            (
                run_words.short_name(run.name),
                run_words.state_of(run),
                run_words.where(run.progress),
                run_words.loss_of(run.progress),
            )
            for run in runs
        ]
        print_table(("Run", "State", "Step", "Loss"), rows, as_json, runs)


@runs_app.command()
def watch(run: RunName, as_json: JsonFlag = False) -> None:
    """Follow a run until it ends; late is fine, the whole curve comes first. Ctrl-C stops watching only."""
    with readable_errors(), connect() as clients:
        follow_run(clients, run, as_json)


@runs_app.command()
def show(run: RunName, png: PngFile = None, as_json: JsonFlag = False) -> None:
    """Show one run: state, stages, settings that are not the defaults, and a picture of the losses so far."""
    with readable_errors(), connect() as clients:
        found = run_show.read(clients, run)
    if as_json:
        print_json(run_show.as_json(found))
    else:
        run_show.print_run(found)
    _save([found], png)


@runs_app.command()
def compare(
    a: RunName,
    b: RunName,
    png: PngFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Two runs side by side: settings that differ, losses, and the first step at which they are not bit for bit equal."""
    with readable_errors(), connect() as clients:
        found = [run_show.read(clients, name) for name in (a, b)]
    if as_json:
        print_json(run_compare.as_json(*found))
    else:
        run_compare.print_runs(*found)
    _save(found, png)


@runs_app.command()
def cancel(run: RunName, as_json: JsonFlag = False) -> None:
    """Stop a run; nothing of it is published."""
    with readable_errors(), connect() as clients:
        found = clients.training.CancelRun(pb.CancelRunRequest(name=run))
        print_message(found, as_json, run_words.lines(found))


@runs_app.command()
def suspend(run: RunName, as_json: JsonFlag = False) -> None:
    """Pause a run: it saves a resume point, frees its GPU and goes on when it is resumed."""
    with readable_errors(), connect() as clients:
        found = clients.training.SuspendRun(pb.SuspendRunRequest(name=run))
        print_message(found, as_json, run_words.lines(found))


@runs_app.command()
def resume(
    run: RunName,
    accept_inexact: Annotated[
        bool,
        typer.Option(
            "--accept-inexact",
            help="Go on although images, captions, base model or library versions have changed; the checkpoint says so.",
        ),
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return at once; `darkroom runs watch` shows it later.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start a run again that failed, was cancelled or is suspended; it goes on from its newest resume point."""
    with readable_errors(), connect() as clients:
        found = clients.training.ResumeRun(pb.ResumeRunRequest(name=run, accept_inexact=accept_inexact))
        if detach:
            print_message(found, as_json, run_words.lines(found))
        else:
            follow_run(clients, run, as_json)


@runs_app.command()
def points(run: RunName, as_json: JsonFlag = False) -> None:
    """List the resume points of a run, newest first."""
    with readable_errors(), connect() as clients:
        found = clients.training.ListResumePoints(pb.ListResumePointsRequest(parent=run)).resume_points
        rows = [
            (
                run_words.stage_of(point.stage),
                point.step,
                f"{point.size_bytes / (1 << 20):.1f}",
                f"{point.time.ToDatetime():%Y-%m-%d %H:%M:%S}",
                point.object,
            )
            for point in found
        ]
        print_table(("Stage", "Step", "MiB", "Time (UTC)", "Object"), rows, as_json, found)


def follow_run(clients: Clients, name: str, as_json: bool) -> None:
    """Watch to the end and print it; exit code 1 if the run did not succeed."""
    try:
        run = watch_run(clients, name)
    except KeyboardInterrupt:
        watch_again = f"darkroom runs watch {run_words.short_name(name)}"
        console.print(f"the training goes on: `{watch_again}` shows it, `runs cancel` stops it", soft_wrap=True)
        raise typer.Exit(130) from None
    print_message(run, as_json, run_words.lines(run))
    if run.state != pb.RUN_STATE_SUCCEEDED:
        print_error(f"the run is {run_words.state_of(run)}")
        raise typer.Exit(1)


def _save(found: list[run_show.Found], png: Path | None) -> None:
    """Write the picture if one is wanted. Exit code 1 if there is nothing to draw yet."""
    if png is None:
        return
    lines = [Line(each.name, each.curve) for each in found]
    with readable_errors():
        if not any(line.curve.stages for line in lines):
            raise UsageProblem(f"{png} was not written: there is no step to draw yet")
        save_png(lines, " and ".join(line.name for line in lines), png)
        console.print(f"the curve is in {png}", markup=False, soft_wrap=True)
