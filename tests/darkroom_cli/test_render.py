"""`darkroom render`: a run file in, objects of Kubernetes out; nothing else is asked."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from darkroom_cli.__main__ import app
from jobs.render import render_all
from jobs.run_file import read_run
from typer.testing import CliRunner

from tests.jobs.test_run_file import LEAST

COMMENT = "# A robot.\n#\n# On any node.\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"render opened a connection to {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "run.yaml"
    path.write_text(COMMENT + LEAST)
    return path


def darkroom(*arguments: object, **options: Any) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments], **options)


def test_yaml_that_kubectl_takes(file: Path) -> None:
    done = darkroom("render", file)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{COMMENT}apiVersion: batch/v1\nkind: Job\n")
    assert [yaml.safe_load(done.stdout)] == render_all(*read_run(LEAST, "run.yaml"))
    assert "&id" not in done.stdout
    assert darkroom("render", file).stdout == done.stdout


def test_several_pods_are_several_documents(file: Path) -> None:
    file.write_text(LEAST + "    nodes: 2\n")
    done = darkroom("render", file)
    assert [each["kind"] for each in yaml.safe_load_all(done.stdout)] == ["Service", "Job"]
    listed = json.loads(darkroom("render", file, "--json").stdout)
    assert (listed["apiVersion"], listed["kind"]) == ("v1", "List")
    assert listed["items"] == list(yaml.safe_load_all(done.stdout))


def test_json_is_one_line(file: Path) -> None:
    done = darkroom("render", file, "--json")
    assert done.stdout.count("\n") == 1
    assert [json.loads(done.stdout)] == render_all(*read_run(LEAST, "run.yaml"))


def test_standard_input_gives_the_same_bytes(file: Path) -> None:
    command = [sys.executable, "-m", "darkroom_cli", "render"]
    with file.open("rb") as content:
        by_pipe = subprocess.run([*command, "-"], stdin=content, capture_output=True, check=True)
    by_name = subprocess.run([*command, str(file)], capture_output=True, check=True)
    assert by_pipe.stdout == by_name.stdout == darkroom("render", file).stdout.encode()
    wrong = subprocess.run([*command, "-"], input=b"spec: {}", capture_output=True)
    assert wrong.returncode == 1
    assert b"standard input:1: spec.session is missing" in wrong.stderr
    assert wrong.stdout == b""


def test_mistakes_name_file_and_line_and_nothing_is_printed(file: Path) -> None:
    file.write_text(LEAST.replace("resolutionPx", "resolution").replace("session: robot", "sesion: robot"))
    done = darkroom("render", file)
    assert (done.exit_code, done.stdout) == (1, "")
    said = done.stderr
    assert f"{file} has 4 mistakes:" in said
    assert f"{file}:4: spec.sesion is unknown, did you mean session?" in said
    assert f"{file}:7: spec.recipe.resolution is unknown, did you mean resolutionPx?" in said


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    missing = darkroom("render", tmp_path / "none.yaml")
    assert missing.exit_code == 1
    assert "none.yaml: No such file or directory" in missing.stderr
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xd8\xff")
    broken = darkroom("render", tmp_path / "picture.yaml")
    assert broken.exit_code == 1
    assert "is not UTF-8 text: byte 0" in broken.stderr


def test_umlauts_and_long_lines_stay_whole(file: Path) -> None:
    words = "für später " * 20
    file.write_text(LEAST.replace("resolutionPx: 64", f"resolutionPx: 64\n    samplePrompts: ['{words}']"))
    done = darkroom("render", file)
    assert words in done.stdout
    assert max(map(len, done.stdout.splitlines())) > 1000


def test_the_command_needs_no_heavy_package(file: Path) -> None:
    code = f"""
import sys
from darkroom_cli.commands.render import render
from typer import Typer
app = Typer()
app.command()(render)
app([{str(file)!r}], standalone_mode=False)
heavy = {{"torch", "cv2", "numpy", "minio", "kubernetes", "diffusers"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
