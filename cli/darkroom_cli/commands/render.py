"""`darkroom render`: a run file in, the objects of Kubernetes out."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from jobs.errors import FileInvalid
from jobs.render import render_all
from jobs.run_file import comment_of, read_run

from darkroom_cli.output import UsageProblem, print_json, readable_errors

_STDIN = "-"


class _Dumper(yaml.SafeDumper):
    """Block style with lists indented, nothing folded, no aliases: the form of the API's own documents."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def render(
    file: Annotated[str, typer.Argument(help="Run file in YAML; - reads it from standard input.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a List if there are several objects.")] = False,
) -> None:
    """Print the Kubernetes Job of a run file, for `kubectl apply -f -`. Asks no service; the same file gives the same bytes.

    docs/training-jobs.md explains every field.
    """
    with readable_errors():
        text, source = _read(file)
        try:
            spec, execution = read_run(text, source)
        except FileInvalid as error:
            raise UsageProblem(str(error)) from error
        objects = render_all(spec, execution)
        if as_json:
            print_json(objects[0] if len(objects) == 1 else {"apiVersion": "v1", "kind": "List", "items": objects})
        else:
            sys.stdout.write(comment_of(text) + as_yaml(objects))


def as_yaml(objects: list[dict[str, Any]]) -> str:
    """The documents of a YAML stream."""
    return yaml.dump_all(
        objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=sys.maxsize, explicit_start=len(objects) > 1
    )


def _read(file: str) -> tuple[str, str]:
    source = "standard input" if file == _STDIN else file
    data = sys.stdin.buffer.read() if file == _STDIN else Path(file).read_bytes()
    try:
        return data.decode("utf-8-sig"), source
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{source} is not UTF-8 text: byte {error.start} cannot be read") from error
