"""ObjectStore against a real S3 server."""

from artifacts.store import ObjectStore


def test_round_trip(store: ObjectStore) -> None:
    store.put("a/b.txt", b"hello")
    assert store.get("a/b.txt") == b"hello"
