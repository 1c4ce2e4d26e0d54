"""Which files are photos, and how they travel."""

import hashlib
from pathlib import Path

import pytest
from darkroom_cli.commands.session import find_photos, upload_parts
from darkroom_cli.output import UsageProblem


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
