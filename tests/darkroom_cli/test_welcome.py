"""What `darkroom up` suggests can be typed as it stands."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from darkroom_cli.connection import Connection
from darkroom_cli.launcher.welcome import welcome

from tests.repository.test_documents import check

WHERE = Connection("a:1", "b:2", "c:3", "d:4", "http://e:5", "a $strange 'token'")


def lines(text: str, start: str) -> list[str]:
    return re.findall(rf"^  ({re.escape(start)} .*)$", text, re.MULTILINE)


def test_its_commands_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PICTURE").touch()
    commands = lines(welcome(tmp_path, WHERE), "darkroom")
    assert len(commands) >= 3
    for command in commands:
        check(command)


def test_its_env_gives_a_shell_addresses_token_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "a folder"
    WHERE.save(data)
    (load,) = lines(welcome(data, WHERE), ".")
    assert shlex.split(load) == [".", "a folder/env"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    script = f'{load}; printf "%s\\n" "$DARKROOM_HTTP" "$DARKROOM_TOKEN"; command -v darkroom'
    said = subprocess.run(["sh", "-ec", script], env=env | {"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert said.stdout.splitlines()[:2] == [WHERE.http, WHERE.token]
    assert said.stdout.splitlines()[2].endswith("/darkroom")


def test_it_does_not_show_the_token(tmp_path: Path) -> None:
    assert WHERE.token not in welcome(tmp_path, WHERE)
