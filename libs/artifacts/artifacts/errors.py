"""Every way an artifact can fail, in words a service can put into its error table.

    ArtifactError
      NotFound           the object, session, image or checkpoint is not there
      AlreadyExists      a create found the name taken
      Conflict           a compare-and-swap found another version
      InvalidName        a name breaks its rule
      ManifestInvalid    a manifest or session record cannot be read as one
      CaptionInvalid     a caption file is not text
      DigestMismatch     the bytes are not those the manifest promised
      StoreError         the store itself said no
        StoreUnavailable   try again
        AccessDenied       wrong credentials or missing permission
        StoreRejected      any other refusal; repeating will not help

All fields are str, int or a tuple of str, so that an edge can copy them into its error details.
"""

import copyreg
from dataclasses import dataclass
from typing import Any


class ArtifactError(Exception):
    """Root of all errors of this library. The message says what was found, what was expected and what to do."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default repeats __init__ with positional arguments only, which keyword arguments would break.
        return copyreg.__newobj__, (type(self),), self.__dict__  # type: ignore[attr-defined]


@dataclass(eq=False)
class NotFound(ArtifactError):
    """`what` ("object", "session", ...) named `name` does not exist in `place` (bucket and endpoint)."""

    what: str
    name: str
    place: str = ""

    def __str__(self) -> str:
        where = f" in {self.place}" if self.place else ""
        return f"{self.what} {self.name!r} does not exist{where}"


@dataclass(eq=False)
class AlreadyExists(ArtifactError):
    """A create found `what` named `name` already there. The existing one is untouched."""

    what: str
    name: str
    advice: str = "choose another name, or delete it first"

    def __str__(self) -> str:
        return f"{self.what} {self.name!r} already exists; {self.advice}"


@dataclass(eq=False)
class Conflict(ArtifactError):
    """A compare-and-swap expected version `expected` (an ETag) of `key`, but the store holds another or none."""

    key: str
    expected: str

    def __str__(self) -> str:
        return f"object {self.key!r} changed since version {self.expected!r} was read; read it again and repeat"


@dataclass(eq=False)
class InvalidName(ArtifactError):
    """`name` breaks `rule`, the rule for names of this `kind` ("session", "file name", ...)."""

    kind: str
    name: str
    rule: str

    def __str__(self) -> str:
        return f"invalid {self.kind} {self.name!r}: {self.rule}"


@dataclass(eq=False)
class ManifestInvalid(ArtifactError):
    """The JSON record at `key` cannot be read; `problems` lists everything wrong with it."""

    key: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key!r} is not a valid record: {'; '.join(self.problems)}"


@dataclass(eq=False)
class CaptionInvalid(ArtifactError):
    """The caption file at `key` cannot be used as text; `problem` says why."""

    key: str
    problem: str

    def __str__(self) -> str:
        return f"caption file {self.key!r} is not usable: {self.problem}"


@dataclass(eq=False)
class DigestMismatch(ArtifactError):
    """The content of `path` is not what its manifest promises. Both sides read "<size> bytes, sha256 <hex>"."""

    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        return (
            f"{self.path!r} is damaged: expected {self.expected}, found {self.found}; "
            "publish it again or restore it from another copy"
        )


@dataclass(eq=False)
class StoreError(ArtifactError):
    """The store at `endpoint` failed a request about `key` (object key or bucket); `detail` is its own reason."""

    key: str
    endpoint: str
    detail: str


@dataclass(eq=False)
class StoreUnavailable(StoreError):
    """No usable answer after all retries. The same call may succeed later."""

    def __str__(self) -> str:
        return (
            f"object store {self.endpoint} is not available for {self.key!r}: {self.detail}; "
            "check that it runs and that DARKROOM_S3_ENDPOINT names it, then try again"
        )


@dataclass(eq=False)
class AccessDenied(StoreError):
    """The store answered, and refused the credentials or the permission."""

    def __str__(self) -> str:
        return (
            f"object store {self.endpoint} refused access to {self.key!r}: {self.detail}; "
            "check DARKROOM_S3_ACCESS_KEY, DARKROOM_S3_SECRET_KEY and what they may do in this bucket"
        )


@dataclass(eq=False)
class StoreRejected(StoreError):
    """The store answered with a refusal that a repeat will not cure, or is not an S3 server at all."""

    def __str__(self) -> str:
        return f"object store {self.endpoint} rejected the request for {self.key!r}: {self.detail}"
