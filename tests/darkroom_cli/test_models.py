"""`darkroom models copy`, and the folders it looks at."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from darkroom_cli.__main__ import app
from darkroom_cli.model_folders import model_folders
from typer.testing import CliRunner


def copy(source: Path, target: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ("models", "copy", str(source), str(target), *arguments))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tiny_models: Path, tmp_path: Path) -> Path:
    """Two small models."""
    for name in ("blip2-itm-tiny", "controlnet-canny-tiny"):
        shutil.copytree(tiny_models / name, tmp_path / "source" / name)
    return tmp_path / "source"


def test_the_tiny_models_are_told_apart(tiny_models: Path) -> None:
    assert {model.name: model.kind for model in model_folders(tiny_models)} == {
        "blip2-itm-tiny": "other",
        "blip2-tiny": "other",
        "controlnet-canny-tiny": "control net",
        "sd15-tiny": "base model",
    }


def test_the_file_that_makes_a_model_comes_last(tiny_models: Path) -> None:
    assert {model.files[-1] for model in model_folders(tiny_models)} == {"model_index.json", "config.json"}


def test_models_are_copied_and_nothing_else(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text("no model")
    (source / "training").mkdir()
    done = copy(source, tmp_path / "new" / "target", "--json")
    assert done.exit_code == 0, done.output
    assert [(row["model"], row["state"]) for row in json.loads(done.stdout)] == [
        ("blip2-itm-tiny", "copied"),
        ("controlnet-canny-tiny", "copied"),
    ]
    shutil.rmtree(source / "training")
    (source / "README.md").unlink()
    assert files(tmp_path / "new" / "target") == files(source)


def test_a_second_time_copies_nothing(source: Path, tmp_path: Path) -> None:
    copy(source, tmp_path / "target")
    before = {path: path.stat().st_ino for path in (tmp_path / "target").rglob("*")}
    done = copy(source, tmp_path / "target", "--json")
    assert {row["state"] for row in json.loads(done.stdout)} == {"present"}
    assert {path: path.stat().st_ino for path in (tmp_path / "target").rglob("*")} == before


def test_a_copy_that_was_killed_is_made_anew(source: Path, tmp_path: Path) -> None:
    half = tmp_path / "target" / ".blip2-itm-tiny.new"
    half.mkdir(parents=True)
    (half / "left-over").write_text("half")
    assert copy(source, tmp_path / "target").exit_code == 0
    assert files(tmp_path / "target") == files(source)


def test_another_model_of_the_same_name_is_not_replaced(source: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "target" / "controlnet-canny-tiny"
    theirs.mkdir(parents=True)
    (theirs / "config.json").write_text("{}")
    done = copy(source, tmp_path / "target")
    assert done.exit_code == 1
    assert f"{theirs} is there with other files" in done.stderr
    assert files(theirs) == {"config.json": b"{}"}


def test_a_folder_without_models_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = copy(tmp_path / "empty", tmp_path / "target")
    assert done.exit_code == 1
    assert f"{tmp_path / 'empty'} holds no folder with a model_index.json or a config.json" in done.stderr


def test_a_configuration_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "source" / "broken").mkdir(parents=True)
    (tmp_path / "source" / "broken" / "config.json").write_text("[]")
    done = copy(tmp_path / "source", tmp_path / "target")
    assert done.exit_code == 1
    assert "config.json is no JSON object" in done.stderr


def test_a_target_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = copy(source, tmp_path / "file" / "below")
    assert done.exit_code == 1
    assert str(tmp_path / "file" / "below") in done.stderr
