"""What the gateway knows of the bucket: manifests alone."""

import pytest
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from webui_gateway.published import Published

from tests.conftest import TRAINED


async def test_a_reserved_place_is_no_checkpoint_and_no_mistake(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(store)
    published = Published(checkpoints)
    reserved = checkpoints.reserve("my-dog", "sessions/dog/runs/first", 1)
    assert list(await published.manifests()) == []
    assert caplog.text == ""
    with checkpoints.begin("my-dog", **TRAINED) as writer:
        writer.add_bytes("weights", b"x")
        manifest = writer.publish(reserved=reserved)
    assert list(await published.manifests()) == [manifest]
