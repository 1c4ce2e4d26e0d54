"""Fixtures shared by all tests: one real S3 server per test process, a fresh bucket per test, the tiny models."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts.embedded import EmbeddedStore
from artifacts.store import ObjectStore, StoreConfig

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


@pytest.fixture
def store(store_config: StoreConfig) -> Iterator[ObjectStore]:
    """A fresh bucket of its own, removed after the test."""
    fresh = ObjectStore(replace(store_config, bucket=f"test-{secrets.token_hex(6)}"))
    fresh.ensure_bucket()
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
