"""The errors carry fields, read as sentences, and survive a process border."""

import pickle

import pytest
from artifacts import errors

ALL = [
    errors.NotFound("session", "dog", "bucket 'darkroom'"),
    errors.AlreadyExists("session", "dog"),
    errors.Conflict("a/b", "etag"),
    errors.InvalidName("session name", "A", "lower case"),
    errors.ManifestInvalid("a/manifest.json", ("id: missing", "files: missing")),
    errors.CaptionInvalid("a/b.txt", "not UTF-8"),
    errors.DigestMismatch("dog/unet.bin", "3 bytes, sha256 aa", "3 bytes, sha256 bb"),
    errors.StoreUnavailable("a/b", "http://store", "refused"),
    errors.AccessDenied("a/b", "http://store", "SignatureDoesNotMatch"),
    errors.StoreRejected("a/b", "http://store", "InvalidRange"),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_message_names_every_field(error: errors.ArtifactError) -> None:
    for value in vars(error).values():
        for part in value if isinstance(value, tuple) else (value,):
            assert part in str(error)


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_pickles(error: errors.ArtifactError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_keyword_arguments_pickle() -> None:
    copy = pickle.loads(pickle.dumps(errors.Conflict(expected="e", key="k")))
    assert (copy.key, copy.expected) == ("k", "e")
