"""Zip directories of every kind that Python can write, and of the kinds that an attacker would."""

import io
import struct
import zipfile
from collections.abc import Callable

import pytest
from artifacts.store import ObjectStore
from converter import ckpt_format, zip_directory
from converter.errors import CheckpointMalformed
from converter.stored import Meter, StoredFile, open_object

Put = Callable[[bytes], StoredFile]


@pytest.fixture
def put(store: ObjectStore) -> Put:
    def upload(data: bytes) -> StoredFile:
        store.put("models/x.ckpt", data)
        return open_object(store, "models/x.ckpt", Meter())

    return upload


def archive(comment: bytes = b"", force_zip64: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.comment = comment
        for name in ("a/data.pkl", "a/data/0"):
            with file.open(name, "w", force_zip64=force_zip64) as member:
                member.write(name.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("comment", [b"", b"PK\x05\x06 in a comment" + b"x" * 3000])
@pytest.mark.parametrize("force_zip64", [False, True])
def test_reads_what_python_writes(comment: bytes, force_zip64: bool, put: Put) -> None:
    if b"PK\x05\x06" in comment:
        comment = comment[4:]
    file = put(archive(comment, force_zip64))
    members = zip_directory.read_directory(file)
    assert {name: ckpt_format.read_member(file, member, 100) for name, member in members.items()} == {
        "a/data.pkl": b"a/data.pkl",
        "a/data/0": b"a/data/0",
    }


def test_reads_the_sizes_of_zip64(put: Put) -> None:
    """Sizes and places in the wide fields, as in files beyond 4 GiB."""
    data = b"hello"
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 45, 0, 0, 0, 33, 0, 0xFFFFFFFF, 0xFFFFFFFF, 1, 0) + b"m" + data
    extra = struct.pack("<2H3Q", 1, 24, len(data), len(data), 0)
    entry = struct.pack(
        "<4s6H3L5H2L", b"PK\x01\x02", 45, 45, 0, 0, 0, 33, 0, *[0xFFFFFFFF] * 2, 1, len(extra), 0, 0, 0, 0, 0xFFFFFFFF
    )
    directory = entry + b"m" + extra
    start = len(local)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(directory), start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    file = put(local + directory + end64 + locator + end)
    assert zip_directory.read_directory(file) == {"m": zip_directory.Member("m", 0, 5)}


def edited(field: str, value: int) -> bytes:
    """The archive with one field of its last directory entry changed."""
    data = bytearray(archive())
    at = data.rindex(b"PK\x01\x02")
    place, size = {
        "method": (10, 2),
        "packed": (20, 4),
        "size": (24, 4),
        "name": (28, 2),
        "extra": (30, 2),
        "offset": (42, 4),
    }[field]
    data[at + place : at + place + size] = value.to_bytes(size, "little")
    return bytes(data)


def end_edited(place: int, size: int, value: int) -> bytes:
    data = bytearray(archive())
    at = data.rindex(b"PK\x05\x06")
    data[at + place : at + place + size] = value.to_bytes(size, "little")
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04",
        archive()[:-1],
        edited("method", 8),
        edited("size", 1_000_000),
        edited("packed", 3),
        edited("size", 0xFFFFFFFF),  # says zip64 and has no such field
        edited("name", 60_000),
        edited("extra", 60_000),
        edited("offset", 0),  # two members at one place
        edited("offset", 4_000_000_000),
        end_edited(10, 2, 9),  # more entries than there are
        end_edited(12, 4, 4_000_000_000),
        end_edited(16, 4, 4_000_000_000),
        end_edited(16, 4, 0xFFFFFFFF),
        end_edited(4, 2, 7),
    ],
)
def test_a_broken_directory_is_refused(data: bytes, put: Put) -> None:
    with pytest.raises(CheckpointMalformed):
        zip_directory.read_directory(put(data))
