"""Where the bucket is and with which credentials. Services nest this in their own configuration.

The fields carry `metadata["env"]` and `metadata["doc"]`, which is all a configuration reader needs; nothing here
reads the environment.
"""

import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field
from typing import Any

# What every S3 store takes, and the SDK with it.
_ENDPOINT = re.compile(r"(https?://)?([a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>\d{1,5}))?/?", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9_-]*")


def _setting(
    env: str,
    doc: str,
    *,
    default: Any = MISSING,
    minimum: float | None = None,
    secret: bool = False,
    by_file: bool = False,
) -> Any:
    """by_file: the variable with _FILE at its end may name a file that holds the value; so for each secret."""
    metadata = {"env": env, "doc": doc, "minimum": minimum, "secret": secret, "by_file": secret or by_file}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class StoreConfig:
    """One bucket of one S3 endpoint. Raises ValueError with everything that `problems` finds."""

    endpoint: str = _setting("DARKROOM_S3_ENDPOINT", "S3 endpoint, host:port or http(s)://host:port")
    access_key: str = _setting("DARKROOM_S3_ACCESS_KEY", "S3 access key", by_file=True)
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
        if problems := tuple(self.problems()):
            raise ValueError("; ".join(problems))

    def problems(self) -> Iterator[str]:
        """What no store and no SDK would take, one sentence for each variable."""
        if not _BUCKET.fullmatch(self.bucket):
            rule = "3 to 63 letters, digits, '.', '_' and '-', with a letter or digit at both ends"
            yield f"DARKROOM_S3_BUCKET is {self.bucket!r}: expected {rule}"
        if not _REGION.fullmatch(self.region):
            yield f"DARKROOM_S3_REGION is {self.region!r}: expected letters, digits, '-' and '_'"
        if self.connect_timeout_seconds <= 0 or self.read_timeout_seconds <= 0 or self.retries < 0:
            yield "the timeouts of DARKROOM_S3_… must be positive and its retries not negative"
        address = _ENDPOINT.fullmatch(self.endpoint)
        if address is None or not 0 < int(address["port"] or 1) < 65536:
            found = "an address with a user in it" if "@" in self.endpoint else repr(self.endpoint)
            yield f"DARKROOM_S3_ENDPOINT is {found}: expected host:port or http(s)://host:port"

    @property
    def url(self) -> str:
        """The endpoint with its scheme; an endpoint without one is plain http."""
        return self.endpoint if "://" in self.endpoint else f"http://{self.endpoint}"

    @property
    def place(self) -> str:
        """The bucket and its endpoint, for error messages."""
        return f"bucket {self.bucket!r} at {self.url}"
