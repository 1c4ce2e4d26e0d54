"""Reading checkpoints: every byte is checked, and nothing half is ever seen."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.errors import DigestMismatch, InvalidName, ManifestInvalid, NotFound, StoreRejected
from artifacts.store import ObjectStore

WEIGHTS = bytes(range(256)) * 10_000


@pytest.fixture
def checkpoints(store: ObjectStore, fields: dict[str, Any]) -> Checkpoints:
    """A bucket with one checkpoint, `dog`."""
    checkpoints = Checkpoints(store)
    with checkpoints.begin("dog", **fields) as writer:
        writer.add_bytes("model_index.json", b"{}")
        writer.add_bytes("unet/weights.bin", WEIGHTS)
        writer.publish()
    return checkpoints


def _flip_a_byte(checkpoints: Checkpoints, path: str, at: int) -> None:
    key = checkpoints.key("dog", path)
    data = bytearray(checkpoints.store.get(key))
    data[at] ^= 1
    checkpoints.store.put(key, bytes(data))


def test_reading(checkpoints: Checkpoints) -> None:
    assert checkpoints.read_file("dog", "model_index.json") == b"{}"
    assert b"".join(checkpoints.reader("dog", "unet/weights.bin")) == WEIGHTS
    assert checkpoints.read_range("dog", "unet/weights.bin", 1000, 5) == WEIGHTS[1000:1005]
    assert checkpoints.verify("dog") == checkpoints.get("dog")


def test_a_manifest_serves_instead_of_the_id(checkpoints: Checkpoints) -> None:
    manifest = checkpoints.get("dog")
    assert checkpoints.read_file(manifest, "model_index.json") == b"{}"
    assert checkpoints.read_range(manifest, "unet/weights.bin", 0, 3) == WEIGHTS[:3]


@pytest.mark.parametrize("at", [0, 1_234_567, len(WEIGHTS) - 1])
def test_a_flipped_byte_is_found(checkpoints: Checkpoints, tmp_path: Path, at: int) -> None:
    _flip_a_byte(checkpoints, "unet/weights.bin", at)
    for call in (
        lambda: checkpoints.read_file("dog", "unet/weights.bin"),
        lambda: list(checkpoints.reader("dog", "unet/weights.bin")),
        lambda: checkpoints.verify("dog"),
        lambda: checkpoints.download("dog", tmp_path),
    ):
        with pytest.raises(DigestMismatch) as caught:
            call()
        assert caught.value.path == "dog/unet/weights.bin"
        assert hashlib.sha256(WEIGHTS).hexdigest() in caught.value.expected
        assert caught.value.expected != caught.value.found
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["model_index.json"]


@pytest.mark.parametrize("data", [b"", WEIGHTS[:-1], WEIGHTS + b"x"])
def test_a_wrong_size_is_found(checkpoints: Checkpoints, data: bytes) -> None:
    checkpoints.store.put(checkpoints.key("dog", "unet/weights.bin"), data)
    with pytest.raises(DigestMismatch, match=f"found {len(data)} bytes"):
        checkpoints.read_file("dog", "unet/weights.bin")


def test_a_missing_file_is_found(checkpoints: Checkpoints) -> None:
    checkpoints.store.delete(checkpoints.key("dog", "unet/weights.bin"))
    with pytest.raises(NotFound, match=r"unet/weights\.bin"):
        checkpoints.verify("dog")


def test_unknown_names(checkpoints: Checkpoints) -> None:
    for call in (checkpoints.get, checkpoints.verify, lambda name: checkpoints.read_file(name, "a")):
        with pytest.raises(NotFound, match="checkpoint 'cat' does not exist"):
            call("cat")
        with pytest.raises(InvalidName, match="checkpoint id"):
            call("../dog")
    with pytest.raises(NotFound, match="file 'vae/x' does not exist in checkpoint 'dog'"):
        checkpoints.reader("dog", "vae/x")


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (0, -1), (len(WEIGHTS) - 1, 2)])
def test_ranges_outside_the_file(checkpoints: Checkpoints, offset: int, length: int) -> None:
    with pytest.raises(ValueError, match=f"has {len(WEIGHTS)} bytes"):
        checkpoints.read_range("dog", "unet/weights.bin", offset, length)


def test_range_of_a_file_that_was_cut(checkpoints: Checkpoints) -> None:
    checkpoints.store.put(checkpoints.key("dog", "unet/weights.bin"), WEIGHTS[:100])
    with pytest.raises(StoreRejected, match="ends at 100"):
        checkpoints.read_range("dog", "unet/weights.bin", 90, 20)


def test_download(checkpoints: Checkpoints, tmp_path: Path) -> None:
    target = tmp_path / "new" / "dog"
    manifest = checkpoints.download("dog", target)
    assert (target / "model_index.json").read_bytes() == b"{}"
    assert (target / "unet" / "weights.bin").read_bytes() == WEIGHTS
    assert (target / "manifest.json").read_bytes() == manifest.encode()
    assert len([file for file in target.rglob("*") if file.is_file()]) == 3
    assert (target / "model_index.json").stat().st_mode & 0o044 == 0o044


def test_download_keeps_what_is_right_and_replaces_what_is_not(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.download("dog", tmp_path)
    (tmp_path / "unet" / "weights.bin").write_bytes(WEIGHTS[:-1] + b"?")
    kept = (tmp_path / "model_index.json").stat().st_ino
    checkpoints.download("dog", tmp_path)
    assert (tmp_path / "unet" / "weights.bin").read_bytes() == WEIGHTS
    assert (tmp_path / "model_index.json").stat().st_ino == kept


def test_list(checkpoints: Checkpoints, fields: dict[str, Any]) -> None:
    for name in ("cat", "dog.v2", "eel"):
        with checkpoints.begin(name, **fields) as writer:
            writer.add_bytes("a", b"x")
            writer.publish()
    checkpoints.begin("unpublished", **fields).add_bytes("a", b"x")
    checkpoints.store.put("checkpoints/Not A Checkpoint/manifest.json", b"{}")
    assert [manifest.id for manifest in checkpoints.list()] == ["cat", "dog", "dog.v2", "eel"]
    assert [manifest.id for manifest in checkpoints.list(start_after="dog")] == ["dog.v2", "eel"]


def test_list_with_a_damaged_manifest(checkpoints: Checkpoints) -> None:
    checkpoints.store.put("checkpoints/cat/manifest.json", b"{")
    with pytest.raises(ManifestInvalid, match=r"checkpoints/cat/manifest\.json"):
        list(checkpoints.list())
    invalid: list[ManifestInvalid] = []
    assert [manifest.id for manifest in checkpoints.list(invalid=invalid)] == ["dog"]
    assert [error.key for error in invalid] == ["checkpoints/cat/manifest.json"]


def test_delete(checkpoints: Checkpoints) -> None:
    checkpoints.delete("dog")
    checkpoints.delete("dog")
    assert [found.key for found in checkpoints.store.list("")] == []
    with pytest.raises(NotFound):
        checkpoints.get("dog")


def test_a_manifest_written_by_hand_has_its_files_beside_it(checkpoints: Checkpoints) -> None:
    store, manifest = checkpoints.store, checkpoints.get("dog")
    by_hand: Manifest = replace(manifest, id="hand", writer="")
    for entry in manifest.files:
        store.copy(checkpoints.key("dog", entry.path), f"checkpoints/hand/{entry.path}")
    store.put("checkpoints/hand/manifest.json", by_hand.encode())
    assert checkpoints.verify("hand") == by_hand
