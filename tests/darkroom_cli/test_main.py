"""The command line without a system: help for everything, and errors that say what to do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from darkroom_cli.__main__ import app
from typer.testing import CliRunner

NOBODY = "127.0.0.1:9"  # the discard port, where nothing listens


@pytest.fixture(autouse=True)
def no_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CAPTIONER", "TRAINER", "CONVERTER", "WEBUI", "HTTP", "TOKEN", "CONNECTION"):
        monkeypatch.delenv(f"DARKROOM_{name}", raising=False)
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def silent_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses at which nothing answers."""
    for name in ("CAPTIONER", "TRAINER", "CONVERTER", "WEBUI", "HTTP", "TOKEN"):
        monkeypatch.setenv(f"DARKROOM_{name}", NOBODY)


def darkroom(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


ALL = dict(commands(typer.main.get_command(app)))


def test_there_is_a_command_for_every_step_of_the_line() -> None:
    assert {("up",), ("demo",), ("session",), ("caption",), ("ask",), ("crop",), ("train",)} <= set(ALL)
    assert {("convert",), ("generate",), ("models",), ("runs", "watch"), ("session", "create")} <= set(ALL)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_explains_every_argument_and_option(path: tuple[str, ...]) -> None:
    assert ALL[path].help
    assert [param.name for param in ALL[path].params if not param.help] == []
    assert darkroom(*path, "--help").exit_code == 0


@pytest.mark.parametrize("path", [path for path in ALL if not hasattr(ALL[path], "commands")], ids=" ".join)
def test_every_command_speaks_json(path: tuple[str, ...]) -> None:
    options = {option for param in ALL[path].params for option in param.opts}
    assert "--json" in options or path == ("demo",)  # the demo's report always is JSON


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("session", "list"), "Start one with `darkroom up`"),
        (("session", "create", "Bad Name"), "'Bad Name' is no name of a session; use a-z, 0-9 and '-'"),
        (("train", "my/toy"), "'my/toy' is no name of a session"),
        (("caption", "photo.jpg"), "there is no file 'photo.jpg', and 'photo.jpg' is no name of a session"),
        (("ask", "photo.jpg", "what is it?"), "'photo.jpg' does not exist"),
        (("runs", "watch", "toy"), "'toy' is no run; write SESSION/RUN"),
        (("generate", "a toy", "--canny", "edges.png"), "'edges.png' does not exist"),
        (("generat", "a toy"), "Did you mean 'generate'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_named(arguments: tuple[str, ...], said: str) -> None:
    done = darkroom(*arguments)
    assert done.exit_code in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_a_system_that_does_not_answer_is_told_from_a_refusal(silent_system: None) -> None:
    done = darkroom("session", "list")
    assert done.exit_code == 3
    assert NOBODY in done.stderr
    assert "Does `darkroom up` run?" in done.stderr


def test_files_that_cannot_be_written_or_read_are_named(silent_system: None, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("not a folder")
    done = darkroom("generate", "a toy", "--out", "out")
    assert (done.exit_code, done.stderr.strip()) == (1, "error: out: File exists")


def test_a_connection_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "connection.json").write_text('{"captioner": "a:1"}')
    done = darkroom("session", "list")
    assert done.exit_code == 1
    assert "connection.json is not what `darkroom up` writes" in done.stderr
