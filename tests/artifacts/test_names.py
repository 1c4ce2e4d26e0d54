"""Rules for names."""

import pytest
from artifacts import names
from artifacts.errors import InvalidName

BAD_FILE_NAMES = ["", ".", "..", ".hidden", "a/b", "a\\b", "a\nb", "a\x00", "\u202etxt", "é" * 101, "\udcff"]


@pytest.mark.parametrize("name", ["a", "0", "my-dog-2", "a" * 63])
def test_session_name_accepts(name: str) -> None:
    assert names.session_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a.b", "a/b", "..", "a" * 64, "a\n", "é"])
def test_session_name_refuses(name: str) -> None:
    with pytest.raises(InvalidName, match="session name") as caught:
        names.session_name(name)
    assert caught.value.name == name
    assert names.SESSION_RULE in str(caught.value)


@pytest.mark.parametrize("name", ["a", "v1.5_pruned-emaonly", "0" * 128])
def test_checkpoint_id_accepts(name: str) -> None:
    assert names.checkpoint_id(name) == name


@pytest.mark.parametrize("name", ["", ".a", "_a", "A", "a/b", "a b", "0" * 129, "a\n"])
def test_checkpoint_id_refuses(name: str) -> None:
    with pytest.raises(InvalidName, match="checkpoint id"):
        names.checkpoint_id(name)


@pytest.mark.parametrize(
    "name", ["a.png", "IMG (1).JPG", "Ünï 写真 🐕.png", "é" * 100, "a&b<c>'\".png", "no extension"]
)
def test_file_name_accepts(name: str) -> None:
    assert names.file_name(name) == name


@pytest.mark.parametrize("name", BAD_FILE_NAMES)
def test_file_name_refuses(name: str) -> None:
    with pytest.raises(InvalidName, match="file name"):
        names.file_name(name)


@pytest.mark.parametrize("path", ["model_index.json", "unet/config.json", "a/b/c.safetensors", "unet/manifest.json"])
def test_file_path_accepts(path: str) -> None:
    assert names.file_path(path) == path


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\\b", "manifest.json", "a/.b", "a/" * 400 + "a"]
)
def test_file_path_refuses(path: str) -> None:
    with pytest.raises(InvalidName, match="file path"):
        names.file_path(path)


@pytest.mark.parametrize("key", ["", "/a", "a//b", "a/", "a/..", "./a", "a\tb", "a" * 1025])
def test_object_key_refuses(key: str) -> None:
    with pytest.raises(InvalidName, match="object key"):
        names.object_key(key)
