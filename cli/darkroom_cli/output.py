"""What a person or a script sees: tables and bars on a terminal, one JSON line with --json, errors that say what to do.

Progress goes to stderr, results to stdout, so that both can be piped apart. Texts from elsewhere are never read as markup.
"""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import grpc
import typer
from chassis.config import ConfigError
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from darkroom_cli.connection import ConnectionInvalid, EndpointInvalid, NotRunning

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON line instead of words.")]

# A table that goes into a file or a pipe is not folded to a terminal's width.
_PIPE_COLUMNS = 10_000

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
        print_json(_as_dict(message))
        return
    width = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    as_json: bool,
    messages: Sequence[Message] | None = None,
) -> None:
    """Rows as a table; as JSON one list: of the messages behind the rows, or of objects named by the columns."""
    if as_json:
        names = [column.lower().replace(" ", "_") for column in columns]
        print_json(
            [dict(zip(names, row, strict=True)) for row in rows]
            if messages is None
            else [_as_dict(message) for message in messages]
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS).print(table)


def progress_bar() -> Progress:
    """A bar with counts and elapsed time on stderr; without a terminal it stays silent. Tasks have a field `note`."""
    narrow = Column(no_wrap=True, min_width=7)
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=16, table_column=Column(min_width=16)),
        MofNCompleteColumn(table_column=narrow),
        TextColumn(
            "{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
        TimeElapsedColumn(table_column=narrow.copy()),
        console=console,
        transient=True,
        expand=True,
        disable=not console.is_terminal,
    )


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turns failures into a message and an exit code: 1 refused or not possible, 3 not reachable, 130 interrupted."""
    try:
        yield
    except (UsageProblem, NotRunning, ConnectionInvalid, EndpointInvalid, ConfigError) as error:
        print_error(str(error))
        sys.exit(1)
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
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
    reason, violations = _details_of(call)
    if call.code() == grpc.StatusCode.UNAVAILABLE and not reason:
        print_error(f"no answer: {call.details()}. Does `darkroom up` run? It prints how to load its addresses.")
        return 3
    if violations:
        print_error(f"the request was refused ({reason or call.code().name})")
        for violation in violations:
            console.print(f"  {violation.field}: {violation.description}", markup=False, soft_wrap=True)
    else:
        print_error(one_line(call))
    return 1


def one_line(error: grpc.RpcError) -> str:
    """What a service answered, with its reason."""
    call: Any = error
    return f"{call.details()} ({_details_of(call)[0] or call.code().name})"


def _details_of(call: Any) -> tuple[str, list[error_details_pb2.BadRequest.FieldViolation]]:
    """ErrorInfo.reason and the violations, as far as the answer carries them."""
    status = rpc_status.from_call(call)
    reason, violations = "", []
    for detail in status.details if status else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            violations = list(bad.field_violations)
    return reason, violations


def _as_dict(message: Message) -> dict[str, Any]:
    """The JSON form of protobuf with the names of the proto; what was not set is there with its default."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
