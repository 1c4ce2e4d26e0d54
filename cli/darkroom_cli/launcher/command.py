"""`darkroom up`: the whole system on this machine until Ctrl-C."""

import signal
import sys
import threading
from typing import Annotated

import typer
from artifacts.errors import ArtifactError
from chassis.config import ConfigError
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from darkroom_cli import connection
from darkroom_cli.connection import Connection
from darkroom_cli.launcher.child import ChildFailed
from darkroom_cli.launcher.system import AlreadyRunning, System
from darkroom_cli.output import console, print_error, print_json

_WATCH_SECONDS = 1.0
StartFailures = (AlreadyRunning, ChildFailed, TimeoutError, ConfigError, ArtifactError, OSError)


def up(
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON line when ready.")] = False,
) -> None:
    """Start the store and all services on this machine and keep them running; Ctrl-C stops them, data stays.

    DARKROOM_DATA: folder for data, logs and token (default ./data). DARKROOM_S3_ENDPOINT with DARKROOM_S3_ACCESS_KEY and
    DARKROOM_S3_SECRET_KEY: use that store instead of an embedded one. DARKROOM_MODELS: folder of models.
    """
    system = System(connection.data_folder())
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _interrupt(stopping))
    try:
        where = start_with_bar(system)
        if as_json:
            print_json({name: value for name, value in vars(where).items() if name != "token"})
            sys.stdout.flush()
        else:
            console.print(_welcome(system, where), markup=True)
        while not stopping.wait(_WATCH_SECONDS):
            for line in system.watch():
                console.print(line, markup=False)
    except KeyboardInterrupt:
        pass
    except StartFailures as error:
        print_error(str(error))
        raise typer.Exit(1) from None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # A second Ctrl-C must not leave processes behind.
        system.stop()
    console.print("stopped; data stays in", str(system.data))


def start_with_bar(system: System) -> Connection:
    """Start the system, showing which services are ready."""
    columns = (TextColumn("starting"), BarColumn(bar_width=30), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("store", total=None)

        def report(name: str, num_ready: int, total: int) -> None:
            bar.update(task, description=f"{name} is ready", completed=num_ready, total=total)

        return system.start(report)


def _interrupt(stopping: threading.Event) -> None:
    """First signal: leave whatever is waited for."""
    if not stopping.is_set():
        stopping.set()
        raise KeyboardInterrupt


def _welcome(system: System, where: Connection) -> str:
    return f"""[bold]Darkroom is ready.[/]

  A1111 API and page  {where.http}
  captioner           {where.captioner}  (gRPC)
  trainer             {where.trainer}  (gRPC)
  converter           {where.converter}  (gRPC)
  webui-gateway       {where.webui}  (gRPC)
  data, logs, token   {system.data}

Try next, in another terminal:
  . {system.data}/env
  darkroom generate "a large red circle on a brick wall"
  darkroom session create mine PHOTOS/
  curl -s -H "Authorization: Bearer $DARKROOM_TOKEN" $DARKROOM_HTTP/sdapi/v1/sd-models

Ctrl-C stops everything; nothing is lost."""
