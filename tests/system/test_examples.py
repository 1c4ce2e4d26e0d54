"""A stranger's five minutes: what examples/README.md prints works."""

import json
import sys
from pathlib import Path

from drawing.scenes import Scene, draw
from PIL import Image

from tests.system.conftest import ROOT, Up


def test_txt2img_with_curl(up: Up, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    up.run("examples/txt2img.sh", "a large red circle on a brick wall", str(picture))
    with Image.open(picture) as image:
        assert image.info["parameters"].startswith("a large red circle on a brick wall")
        assert image.size == (64, 64)


def test_the_picture_shows_what_was_asked(up: Up, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    up.run("examples/txt2img.sh", "a large blue circle on a gray background", str(picture))
    with Image.open(picture) as image:
        red, green, blue = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    assert blue > 150 > max(red, green)


def test_describe(up: Up, tmp_path: Path) -> None:
    scene = Scene("square", "blue", "large", "middle", "gray", 0)
    draw(scene).save(tmp_path / "picture.png")
    picture = str(tmp_path / "picture.png")
    caption, answer = up.run(
        sys.executable, "examples/describe.py", picture, "what color is the object?"
    ).stdout.splitlines()
    assert "blue" in caption
    assert answer.startswith("what color is the object? ")


def test_train(up: Up) -> None:
    printed = up.run(sys.executable, "examples/train.py", "strangers", "examples/photos", "3").stdout.splitlines()
    assert [line.split("  ")[0] for line in printed if line.startswith("step")] == ["step 1/3", "step 2/3", "step 3/3"]
    assert printed[-1].startswith("RUN_STATE_SUCCEEDED checkpoints/")


def test_the_table_names_every_example() -> None:
    table = (ROOT / "examples" / "README.md").read_text()
    files = [path.name for path in (ROOT / "examples").iterdir() if path.name not in ("README.md", "__pycache__")]
    assert [name for name in files if name not in table] == []


def test_env_file_is_for_the_owner_only(up: Up) -> None:
    assert (up.data / "env").stat().st_mode & 0o077 == 0
    assert json.loads((up.data / "connection.json").read_text())["token"]
