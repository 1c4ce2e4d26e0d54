"""`darkroom up`: the whole system on this machine until Ctrl-C."""

import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from artifacts.errors import ArtifactError
from chassis.config import ConfigError
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from darkroom_cli import connection
from darkroom_cli.connection import Connection
from darkroom_cli.launcher import signals
from darkroom_cli.launcher.child import ChildFailed
from darkroom_cli.launcher.system import AlreadyRunning, System
from darkroom_cli.launcher.welcome import welcome
from darkroom_cli.output import console, print_error, print_json

_WATCH_SECONDS = 1.0
StartFailures = (AlreadyRunning, ChildFailed, TimeoutError, ConfigError, ArtifactError, OSError)


def up(
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON line when ready.")] = False,
) -> None:
    """Start the store and all services on this machine and keep them running; Ctrl-C stops them, data stays.

    Settings come from the environment:

    DARKROOM_DATA: folder for data, logs and token; default ./data.

    DARKROOM_S3_ENDPOINT with DARKROOM_S3_ACCESS_KEY and DARKROOM_S3_SECRET_KEY: use that store, not an embedded one.
    DARKROOM_S3_BUCKET: the bucket in either; default darkroom.

    DARKROOM_MODELS: folder of base models; default the tiny ones of this checkout. DARKROOM_CONTROLNETS: folder of
    control nets; default the same. DARKROOM_CAPTION_MODEL, DARKROOM_RETRIEVAL_MODEL: the captioner's.

    DARKROOM_TOKEN: what callers must present; default one made at the first start.
    """
    system = System(connection.data_folder())
    with signals.interrupting():
        try:
            where = start_with_progress(system)
            if as_json:
                print_json({name: value for name, value in vars(where).items() if name != "token"})
                sys.stdout.flush()
            else:
                console.print(welcome(system.data, where), markup=False, soft_wrap=True)
            _keep_running(system)
        except KeyboardInterrupt:
            pass
        except StartFailures as error:
            print_error(str(error))
            raise typer.Exit(1) from None
        finally:
            stop_aloud(system)
    console.print(f"stopped; data stays in {system.data}", markup=False, soft_wrap=True)


def start_with_progress(system: System) -> Connection:
    """Start the system; on a terminal, say what is still waited for."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=None)

        def report(waiting: Sequence[str]) -> None:
            progress.update(task, description=f"starting, waiting for {', '.join(waiting)}" if waiting else "ready")

        return system.start(report)


def stop_aloud(system: System) -> None:
    """Stop the system, saying so: it takes seconds, and longer while something is trained."""
    try:
        if system.started:
            console.print("stopping …")
    finally:
        system.stop()  # Also where nobody can be told any more, because the terminal is gone.


def _keep_running(system: System) -> None:
    while True:
        time.sleep(_WATCH_SECONDS)
        for line in system.watch():
            console.print(line, markup=False, soft_wrap=True)
