"""The whole line through the command line: photos in, pictures out. Short trainings; `make demo` shows the long one."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.system.conftest import ROOT, Up


@pytest.fixture(scope="module")
def session(up: Up) -> str:
    up.darkroom("session", "create", "pip", str(ROOT / "examples" / "photos"), "--base-model", "sd15-tiny")
    return "pip"


@pytest.fixture(scope="module")
def checkpoint(up: Up, session: str) -> str:
    up.darkroom("caption", session)
    up.darkroom("crop", session, "--size", "256")
    stages = ("--text-encoder-steps", "2", "--unet-steps", "3")
    run = json.loads(
        up.darkroom("train", session, "--prompt", "a photo of sks toy", "--captions", *stages, "--json").stdout
    )
    assert run["state"] == "RUN_STATE_SUCCEEDED"
    assert run["exit_code"] == 0
    return str(run["checkpoint"]).removeprefix("checkpoints/")


def test_captions_and_crops(up: Up, session: str, checkpoint: str) -> None:
    images = json.loads(up.darkroom("session", "show", session, "--json").stdout)
    assert [image["pixels"] for image in images] == ["256x256"] * 5
    assert all(image["caption"] for image in images)


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
    assert {entry["model"]: entry["base_model"] for entry in models}[model] == "sd15-tiny"
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
    assert "missing" not in found


def test_errors_say_what_to_do(up: Up) -> None:
    done = up.darkroom("train", "nobody", check=False)
    assert done.returncode == 1
    assert "nobody" in done.stderr
    done = up.darkroom("generate", "x", "--model", "sd15-tinny", check=False)
    assert "sd15-tiny" in done.stderr
    done = up.darkroom("generate", "x", "--sampler", "Oiler", check=False)
    assert "Euler" in done.stderr
