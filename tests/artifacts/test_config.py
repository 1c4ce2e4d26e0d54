"""StoreConfig: addresses, limits, and the metadata that configuration readers use."""

import dataclasses

import pytest
from artifacts.config import StoreConfig


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("minio:9000", "http://minio:9000"),
        ("http://minio:9000", "http://minio:9000"),
        ("https://s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com"),
        ("[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_endpoint_with_and_without_scheme(endpoint: str, url: str) -> None:
    assert StoreConfig(endpoint, "a", "s").url == url


NO_ADDRESSES = [
    "",
    "ftp://x",
    "http://",
    "http://host/bucket",
    "host:9000?x=1",
    "host:port",
    "host:0",
    "host:99999",
    "[::1",
    "a b",
]


@pytest.mark.parametrize("endpoint", NO_ADDRESSES)
def test_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"DARKROOM_S3_ENDPOINT is .*: expected host:port") as caught:
        StoreConfig(endpoint, "a", "s")
    assert repr(endpoint) in str(caught.value)


def test_a_password_in_the_endpoint_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="DARKROOM_S3_ENDPOINT") as caught:
        StoreConfig("http://me:hunter2@host:9000", "a", "s")
    assert "hunter2" not in str(caught.value)


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(ValueError, match=r"S3_BUCKET is 'x'.*S3_REGION is 'a b'.*S3_ENDPOINT is 'http://'"):
        StoreConfig("http://", "a", "s", bucket="x", region="a b")


@pytest.mark.parametrize("change", [{"retries": -1}, {"read_timeout_seconds": 0}, {"connect_timeout_seconds": -1.0}])
def test_limits_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        StoreConfig("host:1", "a", "s", **change)  # type: ignore[arg-type]


def test_secret_is_not_printed() -> None:
    assert "hidden" not in repr(StoreConfig("host:1", "a", "hidden"))


def test_every_field_names_its_variable() -> None:
    fields = dataclasses.fields(StoreConfig)
    assert [f.name for f in fields if not f.metadata["env"].startswith("DARKROOM_S3_") or not f.metadata["doc"]] == []
    assert [f.name for f in fields if f.metadata["secret"]] == ["secret_key"]
