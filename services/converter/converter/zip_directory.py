"""The central directory of a stored zip file (zip64 too), read by ranges from the end; nothing is unpacked.

`ckpt_format` calls this. Only what torch writes is accepted: members stored without compression or encryption.
Format: PKWARE APPNOTE 6.3, sections 4.3.12 to 4.3.16.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from converter.errors import CheckpointMalformed
from converter.stored import StoredFile

LOCAL_HEADER_BYTES: Final = 30
_END = struct.Struct("<4s4H2LH")
_LOCATOR64 = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT_BYTES: Final = 65535
# A model of 2500 tensors needs 0.2 MB.
_MAX_DIRECTORY_BYTES: Final = 4 * 1024**2
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000


@dataclass(frozen=True)
class Member:
    """One member: its name, where its local header begins, and the size of its data in bytes."""

    name: str
    offset: int
    num_bytes: int


def read_directory(file: StoredFile) -> dict[str, Member]:
    """All members by name. Raises CheckpointMalformed."""
    try:
        offset, num_bytes, count = _locate(file)
        if num_bytes > _MAX_DIRECTORY_BYTES or offset + num_bytes > file.size_bytes:
            raise CheckpointMalformed(
                file.name, f"its zip directory claims {num_bytes} bytes at {offset}; is it truncated?"
            )
        members = list(_members(file, file.read(offset, num_bytes), count))
    except (struct.error, UnicodeDecodeError) as error:
        raise CheckpointMalformed(file.name, f"its zip directory cannot be read: {error}") from error
    by_name = {member.name: member for member in members}
    if len(by_name) != len(members):
        raise CheckpointMalformed(file.name, "its zip directory names a member twice")
    _check_places(file, members, offset)
    return by_name


def data_offset(header: bytes, member_offset: int, name: str) -> int:
    """Where a member's data begins, from its 30-byte local header. Raises CheckpointMalformed."""
    signature, _, _, method, *_, name_bytes, extra_bytes = _LOCAL.unpack(header)
    if signature != b"PK\x03\x04" or method != 0:
        raise CheckpointMalformed(name, f"no stored zip member begins at byte {member_offset}")
    return member_offset + LOCAL_HEADER_BYTES + int(name_bytes) + int(extra_bytes)


def _locate(file: StoredFile) -> tuple[int, int, int]:
    """Offset, size and number of entries of the central directory."""
    tail_bytes = min(file.size_bytes, _END.size + _LOCATOR64.size + _MAX_COMMENT_BYTES)
    # torch writes no comment: nearly always the first, small read is enough.
    for wanted in (min(tail_bytes, 1024), tail_bytes):
        tail = file.read(file.size_bytes - wanted, wanted)
        at = tail.rfind(b"PK\x05\x06")
        if at >= 0 and at + _END.size <= len(tail):
            break
    else:
        raise CheckpointMalformed(file.name, "it has no zip directory at its end; is it truncated?")
    _, disk, _, _, count, num_bytes, offset, _ = _END.unpack_from(tail, at)
    if disk not in (0, 0xFFFF):
        raise CheckpointMalformed(file.name, "it is a part of a zip file on several disks")
    if 0xFFFF not in (count, disk) and 0xFFFFFFFF not in (num_bytes, offset):
        return offset, num_bytes, count
    return _locate64(file, tail, at)


def _locate64(file: StoredFile, tail: bytes, at: int) -> tuple[int, int, int]:
    start = at - _LOCATOR64.size
    if start < 0 or tail[start : start + 4] != b"PK\x06\x07":
        raise CheckpointMalformed(file.name, "its zip64 directory is missing")
    end_offset = _LOCATOR64.unpack_from(tail, start)[2]
    if end_offset + _END64.size > file.size_bytes:
        raise CheckpointMalformed(file.name, "its zip64 directory is said to be beyond the end of the file")
    signature, *_, count, num_bytes, offset = _END64.unpack(file.read(end_offset, _END64.size))
    if signature != b"PK\x06\x06":
        raise CheckpointMalformed(file.name, "its zip64 directory is missing")
    return offset, num_bytes, count


def _members(file: StoredFile, directory: bytes, count: int) -> Iterator[Member]:
    position = 0
    for _ in range(count):
        fields = _ENTRY.unpack_from(directory, position)
        signature, flags, method = fields[0], fields[3], fields[4]
        packed_bytes, num_bytes, name_bytes, extra_bytes, comment_bytes = fields[8:13]
        offset = fields[16]
        start = position + _ENTRY.size
        name = directory[start : start + name_bytes].decode("utf-8")
        extra = directory[start + name_bytes : start + name_bytes + extra_bytes]
        if signature != b"PK\x01\x02":
            raise CheckpointMalformed(file.name, "its zip directory is damaged")
        num_bytes, packed_bytes, offset = _widen(extra, num_bytes, packed_bytes, offset)
        if method != 0 or flags & _ENCRYPTED or packed_bytes != num_bytes:
            raise CheckpointMalformed(
                file.name, f"member {name[:200]!r} is compressed or encrypted; torch stores plainly"
            )
        position = start + name_bytes + extra_bytes + comment_bytes
        if position > len(directory):
            raise CheckpointMalformed(file.name, "an entry of its zip directory reaches beyond the directory")
        yield Member(name, offset, num_bytes)


def _widen(extra: bytes, *values: int) -> tuple[int, int, int]:
    """Replace the values that say 0xFFFFFFFF by those of the zip64 extra field, in order."""
    position, wide = 0, b""
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            wide = extra[position + 4 : position + 4 + length]
        position += 4 + length
    result = []
    for value in values:
        if value == 0xFFFFFFFF:
            (value,) = struct.unpack_from("<Q", wide)
            wide = wide[8:]
        result.append(value)
    size, packed, offset = result
    return size, packed, offset


def _check_places(file: StoredFile, members: list[Member], directory_offset: int) -> None:
    """Members must lie before the directory and must not overlap."""
    position = 0
    for member in sorted(members, key=lambda member: member.offset):
        if member.offset < position:
            raise CheckpointMalformed(file.name, f"zip member {member.name[:200]!r} overlaps the one before")
        position = member.offset + LOCAL_HEADER_BYTES + len(member.name.encode()) + member.num_bytes
        if position > directory_offset:
            raise CheckpointMalformed(
                file.name, f"zip member {member.name[:200]!r} reaches beyond the data of the file"
            )
