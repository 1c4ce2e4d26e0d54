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
    ],
)
def test_endpoint_with_and_without_scheme(endpoint: str, url: str) -> None:
    assert StoreConfig(endpoint, "a", "s").url == url


@pytest.mark.parametrize("endpoint", ["", "ftp://x", "http://", "http://host/bucket", "host:9000?x=1"])
def test_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        StoreConfig(endpoint, "a", "s")


@pytest.mark.parametrize("change", [{"retries": -1}, {"read_timeout_seconds": 0}, {"connect_timeout_seconds": -1.0}])
def test_limits_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="timeouts must be positive"):
        StoreConfig("host:1", "a", "s", **change)  # type: ignore[arg-type]


def test_secret_is_not_printed() -> None:
    assert "hidden" not in repr(StoreConfig("host:1", "a", "hidden"))


def test_every_field_names_its_variable() -> None:
    fields = dataclasses.fields(StoreConfig)
    assert [f.name for f in fields if not f.metadata["env"].startswith("DARKROOM_S3_") or not f.metadata["doc"]] == []
    assert [f.name for f in fields if f.metadata["secret"]] == ["secret_key"]
