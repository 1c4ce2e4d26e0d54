"""Commands that the documents print exist, with the options they print; `make` targets too.

tests/system executes those of docs/first-steps.md and examples/README.md.
"""

import contextlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from darkroom_cli.__main__ import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md", "models/tiny/README.md")),
]


def printed_commands(start: str) -> list[str]:
    """Indented lines that begin with a word, continuation lines joined and comments cut."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        found += re.findall(rf"^    ((?:[A-Z0-9_]+=\S+ )*{start} [^\n#]*)", text, re.MULTILINE)
    return found


def mentioned_commands() -> list[str]:
    """Commands within sentences, between backticks: with the words that matter there, so not complete."""
    return sorted(
        {line for document in DOCUMENTS for line in re.findall(r"`(darkroom [a-z][^`]*)`", document.read_text())}
    )


def check(line: str) -> None:
    """Parse a whole command line, sub-commands included. Raises the parser's error."""
    with contextlib.suppress(typer.Exit):  # --help ends there
        _parse(typer.main.get_command(app), "darkroom", shlex.split(line)[1:])


def _parse(command: Any, name: str, arguments: list[str]) -> None:
    context = command.make_context(name, arguments)
    left = [*getattr(context, "_protected_args", ()), *context.args]
    if hasattr(command, "commands") and (left or not command.invoke_without_command):
        sub_name, sub_command, sub_arguments = command.resolve_command(context, left)
        _parse(sub_command, str(sub_name), sub_arguments)


@pytest.mark.parametrize("line", printed_commands("darkroom"))
def test_darkroom_commands_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check(line)


@pytest.mark.parametrize("line", mentioned_commands())
def test_mentioned_commands_have_these_options(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while hasattr(command, "commands") and words:
        command = command.commands[words.pop(0)]
    known = {option for param in command.params for option in param.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_there_are_commands_to_check() -> None:
    assert len(printed_commands("darkroom")) >= 8
    assert len(mentioned_commands()) >= 5


@pytest.mark.parametrize("line", printed_commands("make"))
def test_make_targets_exist(line: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    words = [word for word in line.split() if "=" not in word]
    assert set(words[1:]) <= targets
