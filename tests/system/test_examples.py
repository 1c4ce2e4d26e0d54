"""A stranger's five minutes: what examples/README.md prints works."""

import json
import re
from pathlib import Path

import pytest
from darkroom_cli.launcher.welcome import welcome
from drawing.scenes import Scene, draw
from PIL import Image

from tests.system.conftest import ROOT, Up, printed_lines

# The first test waits for the system and all printed commands.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stranger types."""
    return tmp_path_factory.mktemp("stranger")


@pytest.fixture(scope="module")
def printed(up: Up, folder: Path) -> dict[str, str]:
    """Every command of examples/README.md, executed as printed: what it said, by its file."""
    load, *commands = printed_lines("examples/README.md")
    assert load == ". data/env"
    return {re.search(r"examples/\w+\.\w+", line).group(): up.shell(line, folder) for line in commands}  # type: ignore[union-attr]


def test_txt2img(printed: dict[str, str], folder: Path) -> None:
    assert printed["examples/txt2img.sh"] == "out/red-circle.png\n"
    with Image.open(folder / "out" / "red-circle.png") as image:
        assert image.info["parameters"].startswith("a large red circle on a brick wall")
        assert image.size == (64, 64)


def test_describe(printed: dict[str, str]) -> None:
    caption, colour, background = printed["examples/describe.py"].splitlines()
    assert caption.endswith("on a gray background")
    assert colour.startswith("what color is the object? ")
    assert background == "what is the background? gray"


def test_train(printed: dict[str, str]) -> None:
    lines = printed["examples/train.py"].splitlines()
    steps = [line.split("  ")[0] for line in lines if line.startswith("step")]
    assert steps == [f"step {number}/10" for number in range(1, 11)]
    assert lines[-1].startswith("RUN_STATE_SUCCEEDED checkpoints/stranger-")


def test_the_call_that_the_grpc_page_prints(up: Up, folder: Path) -> None:
    load, call = printed_lines("docs/grpc.md")
    assert load == ". data/env"
    assert "what is the background? gray" in up.shell(call, folder)


def test_every_example_is_printed(printed: dict[str, str]) -> None:
    programs = {
        str(path.relative_to(ROOT)) for ending in ("py", "sh") for path in (ROOT / "examples").glob(f"*.{ending}")
    }
    assert set(printed) == programs


def test_the_curl_that_up_suggests(up: Up, folder: Path) -> None:
    (line,) = re.findall(r"^  (curl .*)$", welcome(up.data, up.connection), re.MULTILINE)
    assert "sd15-tiny" in [model["model_name"] for model in json.loads(up.shell(line, folder))]


def test_a_refused_request_is_printed(up: Up, folder: Path) -> None:
    refused = up.shell("DARKROOM_TOKEN=wrong examples/txt2img.sh 'quotes \"here\"' no.png 2>&1 || true", folder)
    assert "401" in refused
    refused = up.shell("python examples/describe.py examples/README.md 2>&1 || true", folder)
    assert refused.startswith("INVALID_ARGUMENT: ")


def test_the_picture_shows_what_was_asked(up: Up, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    up.run("examples/txt2img.sh", "a large blue circle on a gray background", str(picture))
    with Image.open(picture) as image:
        red, green, blue = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    assert blue > 150 > max(red, green)


def test_the_answer_says_what_the_picture_shows(up: Up, folder: Path) -> None:
    draw(Scene("square", "blue", "large", "middle", "gray", 0)).save(folder / "square.png")
    said = up.shell('python examples/describe.py square.png "what color is the object?"', folder)
    caption, answer = said.splitlines()
    assert "blue" in caption
    assert answer == "what color is the object? blue"


def test_env_file_is_for_the_owner_only(up: Up) -> None:
    assert (up.data / "env").stat().st_mode & 0o077 == 0
    assert json.loads((up.data / "connection.json").read_text())["token"]
