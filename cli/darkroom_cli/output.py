"""What a person or a script sees: tables and bars on a terminal, one JSON line with --json, errors that say what to do.

Progress goes to stderr, results to stdout, so that both can be piped apart.
"""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from darkroom_cli.connection import NotRunning

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")]

console = Console(stderr=True, highlight=False)


class UsageProblem(Exception):
    """The command cannot do what was asked; the message says what to do."""


def print_error(text: str) -> None:
    """A line on stderr; text is shown as it is, brackets included."""
    console.print("[bold red]error:[/]", end=" ")
    console.print(text, markup=False, soft_wrap=True)


def print_message(message: Message, as_json: bool, lines: Sequence[tuple[str, object]] = ()) -> None:
    """One result: its JSON form, or the given name and value pairs."""
    if as_json:
        print_json(MessageToDict(message, preserving_proto_field_name=True))
        return
    width = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], as_json: bool) -> None:
    """Rows as a table, or as one JSON list of objects."""
    if as_json:
        names = [column.lower().replace(" ", "_") for column in columns]
        print_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    Console(highlight=False).print(table)


def progress_bar() -> Progress:
    """A bar with counts and elapsed time on stderr; without a terminal it stays silent."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turns failures of calls into a message and an exit code: 1 refused, 3 not reachable, 130 interrupted."""
    try:
        yield
    except (UsageProblem, NotRunning, FileNotFoundError, NotADirectoryError) as error:
        print_error(str(error))
        sys.exit(1)
    except grpc.RpcError as error:
        code = describe_call_error(error)
        sys.exit(code)
    except KeyboardInterrupt:
        console.print("interrupted")
        sys.exit(130)


def describe_call_error(error: grpc.RpcError) -> int:
    """Print what a service answered, every violation included; returns the exit code."""
    call: Any = error
    status = rpc_status.from_call(call)
    reason, violations = "", []
    for detail in status.details if status else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            violations = list(bad.field_violations)
    if call.code() == grpc.StatusCode.UNAVAILABLE and not reason:
        print_error(f"cannot reach the service: {call.details()}. Is `darkroom up` running?")
        return 3
    print_error(f"{call.details()} ({reason or call.code().name})")
    for violation in violations:
        console.print(f"  {violation.field}: {violation.description}", markup=False)
    return 1
