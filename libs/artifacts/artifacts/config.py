"""Where the bucket is and with which credentials. Services nest this in their own configuration.

The fields carry `metadata["env"]` and `metadata["doc"]`, which is all a configuration reader needs; nothing here
reads the environment.
"""

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class StoreConfig:
    """One bucket of one S3 endpoint. Raises ValueError for an endpoint that is no address."""

    endpoint: str = field(
        metadata={
            "env": "DARKROOM_S3_ENDPOINT",
            "doc": "S3 endpoint, host:port or http(s)://host:port",
            "secret": False,
        }
    )
    access_key: str = field(metadata={"env": "DARKROOM_S3_ACCESS_KEY", "doc": "S3 access key", "secret": False})
    secret_key: str = field(
        repr=False, metadata={"env": "DARKROOM_S3_SECRET_KEY", "doc": "S3 secret key", "secret": True}
    )
    bucket: str = field(
        default="darkroom",
        metadata={"env": "DARKROOM_S3_BUCKET", "doc": "bucket that holds sessions and checkpoints", "secret": False},
    )
    region: str = field(
        default="us-east-1",
        metadata={"env": "DARKROOM_S3_REGION", "doc": "region that requests are signed for", "secret": False},
    )
    connect_timeout_seconds: float = field(
        default=2.0,
        metadata={"env": "DARKROOM_S3_CONNECT_TIMEOUT_SECONDS", "doc": "limit for one connection", "secret": False},
    )
    # Long enough for a store that merges the parts of a large upload before it answers.
    read_timeout_seconds: float = field(
        default=60.0,
        metadata={
            "env": "DARKROOM_S3_READ_TIMEOUT_SECONDS",
            "doc": "limit for one silence of the store",
            "secret": False,
        },
    )
    # With the pauses in between, 4 repeats give a restarting store about three seconds.
    retries: int = field(
        default=4,
        metadata={
            "env": "DARKROOM_S3_RETRIES",
            "doc": "repeats of a request the store did not answer",
            "secret": False,
        },
    )

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"S3 endpoint {self.endpoint!r} is not host:port or http(s)://host:port")

    @property
    def url(self) -> str:
        """The endpoint with its scheme; an endpoint without one is plain http."""
        return self.endpoint if "://" in self.endpoint else f"http://{self.endpoint}"

    @property
    def place(self) -> str:
        """The bucket and its endpoint, for error messages."""
        return f"bucket {self.bucket!r} at {self.url}"
