"""Fixtures shared by all tests: one real S3 server per test process, a fresh bucket per test, the tiny models."""

import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts.embedded import EmbeddedStore
from artifacts.store import ObjectStore, StoreConfig
from xdist.scheduler import LoadFileScheduling

_BUCKETS_AHEAD = 4

_TOGETHER = ("tests/cluster/control_plane/", "tests/cluster/", "tests/system/")
"""Folders whose tests share a running system: one worker has them all. The first that fits counts."""

TRAINED: dict[str, Any] = {
    "format": "diffusers",
    "architecture": "sd15",
    "kind": "dreambooth",
    "precision": "fp32",
    "prediction_type": "epsilon",
    "resolution": 512,
    "base_model": "sd15-tiny",
}
"""What `Checkpoints.begin` needs besides the id, for a trained model."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Every worker gets a file at a time, or a folder of `_TOGETHER`."""
    return _FilesAndFolders(config, log)


class _FilesAndFolders(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return next((folder for folder in _TOGETHER if file.startswith(folder)), file)


@pytest.fixture(scope="session")
def store_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreConfig]:
    """The S3 server of this test process; DARKROOM_S3_ENDPOINT and its credentials name another one instead."""
    endpoint = os.environ.get("DARKROOM_S3_ENDPOINT")
    if endpoint:
        yield StoreConfig(endpoint, os.environ["DARKROOM_S3_ACCESS_KEY"], os.environ["DARKROOM_S3_SECRET_KEY"])
        return
    server = EmbeddedStore(tmp_path_factory.mktemp("store"))
    try:
        yield server.start()
    finally:
        server.stop(kill=True)


@pytest.fixture(scope="session")
def next_bucket(store_config: StoreConfig) -> Iterator[Callable[[], ObjectStore]]:
    """Gives an empty bucket at each call. SeaweedFS waits 0.2 s before it takes a bucket's first object: made ahead."""
    with ThreadPoolExecutor(_BUCKETS_AHEAD) as pool:
        ahead = deque(pool.submit(_new_bucket, store_config) for _ in range(_BUCKETS_AHEAD))

        def take() -> ObjectStore:
            ahead.append(pool.submit(_new_bucket, store_config))
            return ahead.popleft().result()

        yield take
        for made in ahead:
            made.result().delete_bucket()


def _new_bucket(server: StoreConfig) -> ObjectStore:
    made = ObjectStore(replace(server, bucket=f"test-{secrets.token_hex(6)}"))
    made.ensure_bucket()
    made.put("first", b"1")
    made.delete("first")
    return made


@pytest.fixture
def store(next_bucket: Callable[[], ObjectStore]) -> Iterator[ObjectStore]:
    """A fresh bucket of its own, removed after the test."""
    fresh = next_bucket()
    yield fresh
    fresh.delete_bucket()


@pytest.fixture(scope="session")
def tiny_models() -> Path:
    """The folder of the small trained models."""
    return Path(__file__).parents[1] / "models" / "tiny"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, so that two workers end at the same time."""
    slow = ("tests/system/", "tests/dreambooth/", "tests/trainer/")
    items.sort(key=lambda item: next((i for i, folder in enumerate(slow) if item.nodeid.startswith(folder)), len(slow)))
