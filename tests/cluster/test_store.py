"""The cluster's MinIO through the `minio` SDK and through our own store code."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Barrier

import pytest
from artifacts.errors import AlreadyExists
from artifacts.store import ObjectStore, StoreConfig
from minio import Minio

from tests.cluster.harness import store as minio
from tests.cluster.harness.client import Cluster

ROOT = Path(__file__).parents[2]
ROUNDS, WRITERS = 30, 12
CONFORMANCE = (
    "test_conditional.py",
    "test_store.py",
    "test_writer.py",
    "test_checkpoints.py",
    "test_reservation.py",
    "test_sessions.py",
)


@pytest.fixture
def bucket(minio_port: int) -> Iterator[ObjectStore]:
    """A fresh bucket, reached by port-forward."""
    endpoint = f"http://127.0.0.1:{minio_port}"
    config = StoreConfig(endpoint, minio.ACCESS_KEY, minio.SECRET_KEY, bucket=f"test-{secrets.token_hex(6)}")
    store = ObjectStore(config)
    store.ensure_bucket()
    yield store
    store.delete_bucket()


def test_put_and_get_by_the_sdk(minio_port: int) -> None:
    client = Minio(f"127.0.0.1:{minio_port}", minio.ACCESS_KEY, minio.SECRET_KEY, secure=False)
    name, data = f"test-{secrets.token_hex(6)}", os.urandom(100_000)
    client.make_bucket(name)
    client.put_object(name, "a/b", BytesIO(data), len(data))
    with client.get_object(name, "a/b") as answer:
        assert answer.read() == data
    client.remove_object(name, "a/b")
    client.remove_bucket(name)


def test_exactly_one_of_twelve_creators_wins_thirty_times(bucket: ObjectStore) -> None:
    def create(key: str, barrier: Barrier, writer: int) -> bytes | None:
        data = f"writer {writer}".encode()
        barrier.wait()
        try:
            bucket.put_if_absent(key, data)
        except AlreadyExists:
            return None
        return data

    with ThreadPoolExecutor(WRITERS) as pool:
        for round_number in range(ROUNDS):
            key, barrier = f"race/{round_number}", Barrier(WRITERS)
            answers = list(pool.map(lambda w, k=key, b=barrier: create(k, b, w), range(WRITERS)))
            (won,) = [answer for answer in answers if answer is not None]
            assert bucket.get(key) == won


def test_our_store_code_passes_its_own_tests_on_minio(cluster: Cluster) -> None:
    """The tests that otherwise run on the embedded SeaweedFS."""
    address = cluster.cluster_ip(minio.SERVICE, minio.NAMESPACE)
    env = os.environ | {
        "DARKROOM_S3_ENDPOINT": f"http://{address}:{minio.PORT}",
        "DARKROOM_S3_ACCESS_KEY": minio.ACCESS_KEY,
        "DARKROOM_S3_SECRET_KEY": minio.SECRET_KEY,
    }
    files = [f"tests/artifacts/{name}" for name in CONFORMANCE]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-6000:]
