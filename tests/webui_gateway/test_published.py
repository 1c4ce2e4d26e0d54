"""What the gateway knows of the bucket: manifests alone."""

from typing import Any

import pytest
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from webui_gateway.published import Published

FIELDS: dict[str, Any] = {
    "format": "diffusers",
    "architecture": "sd15",
    "kind": "dreambooth",
    "precision": "fp32",
    "prediction_type": "epsilon",
    "resolution": 512,
    "base_model": "sd15-tiny",
}


async def test_a_reserved_place_is_no_checkpoint_and_no_mistake(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(store)
    published = Published(checkpoints)
    reserved = checkpoints.reserve("my-dog", "sessions/dog/runs/first", 1)
    assert list(await published.manifests()) == []
    assert caplog.text == ""
    with checkpoints.begin("my-dog", **FIELDS) as writer:
        writer.add_bytes("weights", b"x")
        manifest = writer.publish(reserved=reserved)
    assert list(await published.manifests()) == [manifest]
