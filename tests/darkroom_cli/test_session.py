"""Which files are photos, and how they travel."""

import hashlib
from pathlib import Path

import pytest
from darkroom.trainer.v1 import session_pb2
from darkroom_cli.commands.session import find_photos, upload_parts
from darkroom_cli.output import UsageProblem
from PIL import Image

from .conftest import TrainerForCommands


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_a_folder_gives_its_photos_in_order(folder: Path) -> None:
    assert [path.name for path in find_photos([folder])] == ["a.jpg", "b.PNG"]


def test_what_is_no_photo_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(UsageProblem, match=r"notes\.txt is no photo"):
        find_photos([folder / "notes.txt"])
    with pytest.raises(UsageProblem, match="does not exist"):
        find_photos([folder / "none.png"])
    with pytest.raises(UsageProblem, match="holds no photos"):
        find_photos([folder / ".cache"])


def test_an_upload_announces_size_and_digest() -> None:
    data = bytes(range(256)) * 4096
    header, *chunks = upload_parts("cat", "1.png", data)
    assert (header.header.session, header.header.size_bytes) == ("sessions/cat", len(data))
    assert header.header.sha256 == hashlib.sha256(data).hexdigest()
    assert b"".join(part.chunk for part in chunks) == data
    assert max(len(part.chunk) for part in chunks) <= 1 << 20


@pytest.mark.parametrize("words", [("create", "twins"), ("upload", "toy")])
def test_a_photo_of_a_taken_stem_is_told_and_the_rest_goes_on(
    trainer: TrainerForCommands, tmp_path: Path, words: tuple[str, str]
) -> None:
    trainer.session("toy", num_photos=0)
    for name in ("a.jpg", "a.png", "b.png"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no picture")
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "d.png")
    result = trainer.darkroom("session", *words, str(tmp_path))
    assert result.exit_code == 1
    assert "2 not uploaded" in result.stderr
    assert "'a.png'" in result.stderr
    assert "already exists" in result.stderr
    assert "c.png" in result.stderr
    stored = trainer.sessions.ListImages(session_pb2.ListImagesRequest(parent=f"sessions/{words[1]}")).images
    assert [image.name.rsplit("/", 1)[1] for image in stored] == ["a.jpg", "b.png", "d.png"]


def test_an_upload_into_no_session_ends_at_the_first_photo(trainer: TrainerForCommands, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    result = trainer.darkroom("session", "upload", "nowhere", str(tmp_path))
    assert result.exit_code == 1
    assert "nowhere" in result.stderr
    assert "not uploaded" not in result.stderr
