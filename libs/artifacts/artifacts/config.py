"""Where the bucket is and with which credentials. Services nest this in their own configuration.

The fields carry `metadata["env"]` and `metadata["doc"]`, which is all a configuration reader needs; nothing here
reads the environment.
"""

from dataclasses import MISSING, dataclass, field
from typing import Any
from urllib.parse import urlsplit


def _setting(env: str, doc: str, *, default: Any = MISSING, minimum: float | None = None, secret: bool = False) -> Any:
    return field(
        default=default, repr=not secret, metadata={"env": env, "doc": doc, "minimum": minimum, "secret": secret}
    )


@dataclass(frozen=True)
class StoreConfig:
    """One bucket of one S3 endpoint. Raises ValueError for an endpoint that is no address."""

    endpoint: str = _setting("DARKROOM_S3_ENDPOINT", "S3 endpoint, host:port or http(s)://host:port")
    access_key: str = _setting("DARKROOM_S3_ACCESS_KEY", "S3 access key")
    secret_key: str = _setting("DARKROOM_S3_SECRET_KEY", "S3 secret key", secret=True)
    bucket: str = _setting("DARKROOM_S3_BUCKET", "bucket that holds sessions and checkpoints", default="darkroom")
    region: str = _setting("DARKROOM_S3_REGION", "region that requests are signed for", default="us-east-1")
    connect_timeout_seconds: float = _setting(
        "DARKROOM_S3_CONNECT_TIMEOUT_SECONDS", "longest wait for one connection", default=2.0, minimum=0.1
    )
    # Long enough for a store that merges the parts of a large upload before it answers.
    read_timeout_seconds: float = _setting(
        "DARKROOM_S3_READ_TIMEOUT_SECONDS", "longest silence of the store within one request", default=60.0, minimum=0.1
    )
    # With the pauses in between, 4 repeats give a restarting store about three seconds.
    retries: int = _setting(
        "DARKROOM_S3_RETRIES", "repeats of a request that got no usable answer", default=4, minimum=0
    )

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"S3 endpoint {self.endpoint!r} is not host:port or http(s)://host:port")
        if self.connect_timeout_seconds <= 0 or self.read_timeout_seconds <= 0 or self.retries < 0:
            raise ValueError("S3 timeouts must be positive and retries not negative")

    @property
    def url(self) -> str:
        """The endpoint with its scheme; an endpoint without one is plain http."""
        return self.endpoint if "://" in self.endpoint else f"http://{self.endpoint}"

    @property
    def place(self) -> str:
        """The bucket and its endpoint, for error messages."""
        return f"bucket {self.bucket!r} at {self.url}"
