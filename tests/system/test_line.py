"""The whole line by the commands that docs/first-steps.md prints: photos in, pictures out.

Only the training is shorter than printed; `make demo` shows the long one.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.system.conftest import Up, printed_lines

# The first test waits for all printed commands.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are typed."""
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def line(up: Up, folder: Path) -> dict[str, Any]:
    """Each printed `darkroom` command, executed with --json: what it said, by its name."""
    said: dict[str, Any] = {}
    for command in printed_lines("docs/first-steps.md"):
        if not command.startswith("darkroom "):
            continue
        short = re.sub(r"(--\S+-steps) \d+", r"\1 2", command)
        if "train" in said:
            short = short.replace("CHECKPOINT", said["train"]["checkpoint"].removeprefix("checkpoints/"))
        name = command.split()[1] + (" --preview" if "--preview" in command else "")
        said[name] = json.loads(up.shell(f"{short} --json", folder))
    return said


@pytest.fixture(scope="module")
def checkpoint(line: dict[str, Any]) -> str:
    return str(line["train"]["checkpoint"]).removeprefix("checkpoints/")


def test_the_training_published_a_checkpoint(line: dict[str, Any]) -> None:
    assert (line["train"]["state"], line["train"]["exit_code"]) == ("RUN_STATE_SUCCEEDED", 0)
    assert line["train"]["checkpoint"]


def test_captions_and_crops(up: Up, folder: Path, line: dict[str, Any]) -> None:
    images = json.loads(up.darkroom("session", "show", "pip", "--json").stdout)
    assert [(image["width_px"], image["height_px"]) for image in images] == [(256, 256)] * 5
    assert all(image["caption"] for image in images)
    assert len(list((folder / "out" / "crops").glob("*.png"))) == 5
    assert [crop["data"] for crop in line["crop --preview"]] == [""] * 5


def test_both_single_files_hold_the_same_tensors(up: Up, checkpoint: str) -> None:
    done = [
        json.loads(up.darkroom("convert", checkpoint, "--to", to, "--json").stdout) for to in ("safetensors", "ckpt")
    ]
    assert done[0]["num_tensors_proved"] == done[0]["num_tensors"]
    assert done[0]["tensors_sha256"] == done[1]["tensors_sha256"]


def test_a_conversion_is_served_without_a_restart(up: Up, checkpoint: str, tmp_path: Path) -> None:
    done = json.loads(up.darkroom("convert", checkpoint, "--to", "safetensors", "--json").stdout)
    model = done["checkpoint"].removeprefix("checkpoints/")
    models = json.loads(up.darkroom("models", "--json").stdout)
    assert {entry["name"]: entry["base_model"] for entry in models}[f"models/{model}"] == "sd15-tiny"
    drawn = json.loads(
        up.darkroom(
            "generate", "a photo of sks toy at night", "--model", model, "--out", str(tmp_path), "--seed", "5", "--json"
        ).stdout
    )
    with Image.open(drawn[0]["file"]) as image:
        assert image.size == (64, 64)
        assert f"Model: {model}" in image.info["parameters"]


def test_inspect(up: Up, checkpoint: str) -> None:
    found = json.loads(up.darkroom("inspect", checkpoint, "--json").stdout)
    assert (found["format"], found["architecture"]) == ("FORMAT_DIFFUSERS", "sd15")
    assert found["missing"] == []


def test_one_bad_photo_does_not_keep_the_others_away(up: Up, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("not a picture")
    done = up.darkroom("session", "create", "mixed", str(tmp_path), "--json", check=False)
    assert done.returncode == 1
    assert "bad.png" in done.stderr
    assert json.loads(done.stdout)["num_images"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "nobody"), "'nobody'"),
        (("session", "show", "nobody"), "'nobody' does not exist"),
        (("train", "pip", "--unet-steps", "5", "--unet-rate", "nan"), "learning_rate must be above 0"),
        (("generate", "x", "--model", "sd15-tinny"), "sd15-tiny"),
        (("generate", "x", "--sampler", "Oiler"), "Euler"),
        (("convert", "nothing"), "'nothing' does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refusals_say_what_is_wrong(up: Up, line: dict[str, Any], arguments: tuple[str, ...], said: str) -> None:
    done = up.darkroom(*arguments, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_token_is_named(up: Up) -> None:
    done = up.run("env", "DARKROOM_TOKEN=wrong", sys.executable, "-m", "darkroom_cli", "session", "list", check=False)
    assert done.returncode == 1
    assert "DARKROOM_TOKEN" in done.stderr
