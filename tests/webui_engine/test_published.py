"""Checkpoints of the bucket: they appear, are copied and verified, and a damaged one harms nothing."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.store import ObjectStore
from safetensors.numpy import load_file, save_file
from webui_engine import digests
from webui_engine.published import Published

from .conftest import Running, refused

FIELDS = {
    "architecture": "sd15",
    "kind": "dreambooth",
    "precision": "fp32",
    "prediction_type": "epsilon",
    "resolution": 64,
    "base_model": "sd15-tiny",
}
Publish = Callable[..., Manifest]


@pytest.fixture
def publish(running: Running) -> Iterator[Publish]:
    """Publish a diffusers folder under an id; `change` alters the bytes of a file. Removed after the test."""
    checkpoints = Checkpoints(running.store)
    published: list[str] = []

    def put(checkpoint_id: str, folder: Path, **fields: Any) -> Manifest:
        with checkpoints.begin(checkpoint_id, **{**FIELDS, "format": "diffusers", **fields}) as writer:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    writer.add_file(path.relative_to(folder).as_posix(), path)
            published.append(checkpoint_id)
            return writer.publish()

    yield put
    for checkpoint_id in published:
        checkpoints.delete(checkpoint_id)


def titles(client: httpx.Client) -> list[str]:
    return [model["title"] for model in client.get("/sdapi/v1/sd-models").json()]


def draw(client: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    body = {"prompt": "a", "steps": 1, "seed": 1, "override_settings": {"sd_model_checkpoint": model}, **fields}
    return client.post("/sdapi/v1/txt2img", json=body)


def test_a_published_checkpoint_appears_and_draws(client: httpx.Client, publish: Publish, running: Running) -> None:
    assert not [title for title in titles(client) if title.startswith("my-dog")]
    manifest = publish("my-dog", running.models / "sd15-tiny", title="My dog, 500 steps")
    expected = digests.combine((entry.path, entry.sha256) for entry in manifest.files)
    assert f"my-dog [{expected[:10]}]" in titles(client)
    for alias in ("my-dog", "My dog, 500 steps", "checkpoints/my-dog", f"my-dog [{expected[:10]}]"):
        response = draw(client, alias)
        assert response.status_code == 200, response.text
        assert f"Model hash: {expected[:10]}, Model: my-dog" in response.json()["info"]


def test_the_same_weights_have_the_same_hash_in_a_folder_and_in_the_bucket(
    client: httpx.Client, publish: Publish, running: Running
) -> None:
    publish("copy", running.models / "sd15-tiny")
    hashes = {model["model_name"]: model["sha256"] for model in client.get("/sdapi/v1/sd-models").json()}
    assert hashes["copy"] == hashes["sd15-tiny"]


def test_a_request_restores_the_model_unless_told_otherwise(
    client: httpx.Client, publish: Publish, running: Running
) -> None:
    publish("other", running.models / "sd15-tiny")
    before = client.get("/sdapi/v1/options").json()["sd_model_checkpoint"]
    draw(client, "other")
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == before
    draw(client, "other", override_settings_restore_afterwards=False)
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"].startswith("other [")


def test_other_architectures_and_kinds_are_no_models(client: httpx.Client, publish: Publish, running: Running) -> None:
    publish("xl", running.models / "sd15-tiny" / "unet", architecture="sdxl")
    publish("lora", running.models / "sd15-tiny" / "unet", kind="lora")
    assert not [title for title in titles(client) if title.split()[0] in ("xl", "lora")]


def test_a_flipped_byte_is_found_and_the_model_before_stays(
    client: httpx.Client, publish: Publish, running: Running
) -> None:
    manifest = publish("damaged", running.models / "sd15-tiny", title="x")
    checkpoints = Checkpoints(running.store)
    path = "unet/diffusion_pytorch_model.safetensors"
    key = checkpoints.key(manifest, path)
    data = bytearray(running.store.get(key))
    data[len(data) // 2] ^= 1
    running.store.put(key, bytes(data))
    refused(draw(client, "damaged"), 500, "damaged", path, "sha256")
    response = client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "damaged"})
    refused(response, 500, "damaged", path)
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"].startswith("sd15-tiny [")
    assert draw(client, "sd15-tiny").status_code == 200
    data[len(data) // 2] ^= 1
    running.store.put(key, bytes(data))
    assert draw(client, "damaged").status_code == 200  # what was right is kept, the file is fetched again


def test_numbers_that_are_no_picture_are_told(
    client: httpx.Client, publish: Publish, running: Running, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(running.models / "sd15-tiny", folder)
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.bias"][:] = np.nan
    save_file(weights, file, metadata={"format": "pt"})
    publish("no-numbers", folder)
    refused(draw(client, "no-numbers"), 500, "no-numbers [", "not finite in fp32")
    assert draw(client, "sd15-tiny").status_code == 200


def test_a_checkpoint_that_was_deleted_is_unknown(client: httpx.Client, publish: Publish, running: Running) -> None:
    publish("gone", running.models / "sd15-tiny" / "unet")
    Checkpoints(running.store).delete("gone")
    refused(draw(client, "gone"), 422, "'gone' not found")


def test_a_reserved_place_is_no_checkpoint_and_no_mistake(store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(store)
    checkpoints.reserve("my-dog", "sessions/dog/runs/first", 1)
    assert Published(checkpoints, listing_seconds=0).list(required=True) == []
    assert caplog.text == ""
