"""Folders and digests: names, hashes, what is left out, a bucket that is down."""

import hashlib
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from webui_engine.catalogue import Catalogue
from webui_engine.digests import DigestCache, legacy_hash
from webui_engine.errors import StoreDown, UnknownName
from webui_engine.published import Published


def make_pipeline(folder: Path, class_name: str = "StableDiffusionPipeline") -> None:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": class_name}))
    (folder / "unet" / "a.safetensors").write_bytes(b"weights a")
    (folder / "b.safetensors").write_bytes(b"weights b")


def test_the_digest_of_a_folder_can_be_made_by_hand(tmp_path: Path) -> None:
    make_pipeline(tmp_path / "model")
    command = "find * -name '*.safetensors' -o -name '*.bin' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    by_hand = subprocess.check_output(command, shell=True, cwd=tmp_path / "model", text=True).split()[0]
    assert DigestCache(tmp_path / "digests.json").folder_sha256(tmp_path / "model") == by_hand


def test_digests_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"one")
    first = DigestCache(tmp_path / "digests.json").sha256(file)
    assert first == hashlib.sha256(b"one").hexdigest()
    stat = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = DigestCache(tmp_path / "digests.json")
    assert again.sha256(file) == first  # same size, same time: taken from the file of the first one
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert again.sha256(file) == hashlib.sha256(b"two").hexdigest()


def test_the_old_hash_reads_64_kib_at_1_mib(tmp_path: Path) -> None:
    data = os.urandom(0x100000 + 0x10000 + 5)
    (tmp_path / "net").write_bytes(data)
    assert legacy_hash(tmp_path / "net") == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]


def test_what_is_no_model_is_left_out(tmp_path: Path) -> None:
    make_pipeline(tmp_path / "models" / "good")
    make_pipeline(tmp_path / "models" / "flux", "FluxPipeline")
    (tmp_path / "models" / "broken").mkdir()
    (tmp_path / "models" / "broken" / "model_index.json").write_text("{")
    (tmp_path / "models" / "notes.txt").write_text("x")
    (tmp_path / "models" / ".hidden.ckpt").write_text("x")
    (tmp_path / "models" / "v1.5.ckpt").write_bytes(b"x")
    catalogue = Catalogue([tmp_path / "models", tmp_path / "missing"], [], tmp_path / "cache")
    catalogue.refresh()
    assert [model.name for model in catalogue.models()] == ["good", "v1.5"]
    assert catalogue.find("v1.5").title == f"v1.5.ckpt [{hashlib.sha256(b'x').hexdigest()[:10]}]"


def test_an_unknown_model_names_the_closest(tmp_path: Path) -> None:
    make_pipeline(tmp_path / "models" / "analog-diffusion")
    catalogue = Catalogue([tmp_path / "models"], [], tmp_path / "cache")
    catalogue.refresh()
    with pytest.raises(UnknownName, match=r"'analog-difusion' not found; closest: analog-diffusion \["):
        catalogue.find("analog-difusion")
    with pytest.raises(UnknownName, match="there is no control net at all"):
        catalogue.find_control_net("canny")


def test_a_bucket_that_is_down_hides_no_local_model(tmp_path: Path, store: ObjectStore) -> None:
    make_pipeline(tmp_path / "models" / "local")
    down = ObjectStore(replace(store.config, endpoint="127.0.0.1:9", retries=0, connect_timeout_seconds=0.2))
    published = Published(Checkpoints(down), listing_seconds=0)
    catalogue = Catalogue([tmp_path / "models"], [], tmp_path / "cache", published)
    catalogue.refresh()
    assert [model.name for model in catalogue.models()] == ["local"]
    assert catalogue.find("local").name == "local"
    with pytest.raises(StoreDown, match="not available"):
        catalogue.find("perhaps-in-the-bucket")
