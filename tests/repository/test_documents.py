"""Commands that the documents print exist, with the options they print; `make` targets too. tests/system runs the longer ones."""

import re
import shlex
from pathlib import Path

import click
import pytest
import typer
from darkroom_cli.__main__ import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(path for path in (ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def printed_commands(start: str) -> list[str]:
    """Indented lines that begin with a word, continuation lines joined and comments cut."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        found += re.findall(rf"^    ((?:[A-Z0-9_]+=\S+ )*{start} [^\n#]*)", text, re.MULTILINE)
    return found


def parse(command: click.Command, name: str, arguments: list[str]) -> None:
    """Parse as the command line would, sub-commands included; raises click.UsageError."""
    context = command.make_context(name, arguments)
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        sub_name, sub_command, sub_arguments = command.resolve_command(context, rest)
        assert sub_command is not None
        parse(sub_command, str(sub_name), sub_arguments)


@pytest.mark.parametrize("line", printed_commands("darkroom"))
def test_darkroom_commands_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    parse(typer.main.get_command(app), "darkroom", shlex.split(line)[1:])


def test_there_are_commands_to_check() -> None:
    assert len(printed_commands("darkroom")) >= 8


@pytest.mark.parametrize("line", printed_commands("make"))
def test_make_targets_exist(line: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    words = [word for word in line.split() if "=" not in word]
    assert set(words[1:]) <= targets
