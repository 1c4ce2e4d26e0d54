"""`darkroom train` and `darkroom runs`: start, watch, list and cancel trainings."""

from datetime import timedelta
from typing import Annotated

import typer
from darkroom.trainer.v1 import training_pb2 as pb

from darkroom_cli.clients import Clients, connect
from darkroom_cli.commands.session import SessionName, check_session
from darkroom_cli.output import (
    JsonFlag,
    console,
    print_error,
    print_message,
    print_table,
    progress_bar,
    readable_errors,
)
from darkroom_cli.watching import follow

runs_app = typer.Typer(no_args_is_help=True, help="Runs: trainings of sessions.")


def _check_run(name: str) -> str:
    """The resource name of "SESSION/RUN". Raises typer.BadParameter."""
    session, slash, run = name.removeprefix("sessions/").replace("/runs/", "/", 1).partition("/")
    if not slash or not run or "/" in run:
        raise typer.BadParameter(f"{name!r} is no run; write SESSION/RUN as `darkroom runs list` prints it")
    return f"sessions/{check_session(session)}/runs/{run}"


def _check_session_or_all(name: str) -> str:
    return name if name == "-" else check_session(name)


RunName = Annotated[str, typer.Argument(help="SESSION/RUN, as `darkroom runs list` prints it.", callback=_check_run)]
_STAGES = {pb.STAGE_TEXT_ENCODER: "text encoder", pb.STAGE_UNET: "UNet"}


def train(
    session: SessionName,
    base_model: Annotated[str, typer.Option(help="Base model; default the session's.")] = "",
    prompt: Annotated[str, typer.Option(help="Words before each caption, such as 'a photo of sks toy'.")] = "",
    captions: Annotated[bool, typer.Option("--captions", help="Append each image's caption to its prompt.")] = False,
    text_encoder_steps: Annotated[int, typer.Option(help="Steps of the first stage; 0 skips it.")] = 350,
    text_encoder_rate: Annotated[float, typer.Option(help="Learning rate of the first stage.")] = 1e-6,
    unet_steps: Annotated[int, typer.Option(help="Steps of the second stage; 0 skips it.")] = 1500,
    unet_rate: Annotated[float, typer.Option(help="Learning rate of the second stage.")] = 2e-6,
    resolution: Annotated[int, typer.Option(help="Edge of the training square in pixels; 0: the base model's.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images in one step.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    sample: Annotated[list[str] | None, typer.Option(help="Prompt of a sample image; may be repeated.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return at once; `darkroom runs watch` shows it later.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a personal model on a session: text encoder first, then UNet. Ctrl-C stops watching, not the training."""
    recipe = pb.Recipe(
        base_model=base_model,
        instance_prompt=prompt,
        use_captions=captions,
        text_encoder=pb.StageSettings(steps=text_encoder_steps, learning_rate=text_encoder_rate),
        unet=pb.StageSettings(steps=unet_steps, learning_rate=unet_rate),
        resolution_px=resolution,
        batch_size=batch_size,
        seed=seed,
        sample_prompts=sample or [],
    )
    with readable_errors(), connect() as clients:
        run = clients.training.CreateRun(pb.CreateRunRequest(parent=f"sessions/{session}", recipe=recipe))
        if detach:
            print_message(run, as_json, _lines(run))
        else:
            _follow(clients, run.name, as_json)


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
        rows = [(_short(run.name), _state(run), _where(run.progress), _loss(run.progress)) for run in runs]
        print_table(("Run", "State", "Step", "Loss"), rows, as_json, runs)


@runs_app.command()
def watch(run: RunName, as_json: JsonFlag = False) -> None:
    """Follow a run until it ends; late is fine, the whole curve comes first. Ctrl-C stops watching only."""
    with readable_errors(), connect() as clients:
        _follow(clients, run, as_json)


@runs_app.command()
def show(run: RunName, as_json: JsonFlag = False) -> None:
    """Show one run."""
    with readable_errors(), connect() as clients:
        found = clients.training.GetRun(pb.GetRunRequest(name=run))
        print_message(found, as_json, _lines(found))


@runs_app.command()
def cancel(run: RunName, as_json: JsonFlag = False) -> None:
    """Stop a run; nothing of it is published."""
    with readable_errors(), connect() as clients:
        found = clients.training.CancelRun(pb.CancelRunRequest(name=run))
        print_message(found, as_json, _lines(found))


def watch_run(clients: Clients, name: str, losses: list[float] | None = None) -> pb.Run:
    """Follow a run with a bar for each stage; returns it as it ended. losses, if given, receives the loss of each step."""
    run = pb.Run(name=name)
    curve: dict[tuple[int, int], float] = {}  # by stage and step: a watch that is opened again repeats them
    with progress_bar() as bar:
        tasks = {}
        for event in follow(lambda: clients.training.WatchRun(pb.WatchRunRequest(name=name))):
            kind = event.WhichOneof("event")
            if kind == "progress":
                progress = event.progress
                curve[progress.stage, progress.step] = progress.loss
                if progress.stage not in tasks:
                    tasks[progress.stage] = bar.add_task(_STAGES[progress.stage], total=progress.num_steps, note="")
                left = timedelta(seconds=progress.eta.seconds)
                note = f"loss {progress.smoothed_loss:.3f}, {left} left, {progress.images_per_second:.1f} images/s"
                bar.update(tasks[progress.stage], completed=progress.step, note=note)
            elif kind == "sample":
                bar.console.print(
                    f"sample after step {event.sample.step}: {event.sample.object}", markup=False, soft_wrap=True
                )
            elif kind == "message":
                bar.console.print(event.message, markup=False, soft_wrap=True)
            else:
                run = event.run
    if losses is not None:
        losses.extend(curve.values())
    return run


def _follow(clients: Clients, name: str, as_json: bool) -> None:
    """Watch to the end and print it; exit code 1 if the run did not succeed."""
    try:
        run = watch_run(clients, name)
    except KeyboardInterrupt:
        watch_again = f"darkroom runs watch {_short(name)}"
        console.print(f"the training goes on: `{watch_again}` shows it, `runs cancel` stops it", soft_wrap=True)
        raise typer.Exit(130) from None
    print_message(run, as_json, _lines(run))
    if run.state != pb.RUN_STATE_SUCCEEDED:
        print_error(f"the run is {_state(run)}")
        raise typer.Exit(1)


def _lines(run: pb.Run) -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = [
        ("run", _short(run.name)),
        ("state", _state(run)),
        ("checkpoint", run.checkpoint.removeprefix("checkpoints/")),
    ]
    if run.HasField("progress"):
        lines += [("step", _where(run.progress)), ("loss", _loss(run.progress))]
    if run.error:
        lines.append(("error", run.error))
    return lines


def _state(run: pb.Run) -> str:
    return pb.RunState.Name(run.state).removeprefix("RUN_STATE_")


def _where(progress: pb.Progress) -> str:
    return f"{_STAGES.get(progress.stage, '')} {progress.step}/{progress.num_steps}" if progress.num_steps else ""


def _loss(progress: pb.Progress) -> str:
    return f"{progress.smoothed_loss:.4f}" if progress.num_steps else ""


def _short(name: str) -> str:
    return name.removeprefix("sessions/").replace("/runs/", "/", 1)
