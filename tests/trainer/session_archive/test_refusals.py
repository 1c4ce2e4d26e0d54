"""Nothing appears of an archive with something wrong in it."""

from collections.abc import AsyncIterator

import pytest
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import session_pb2 as pb
from grpc import StatusCode
from trainer.archive_index import NAME, decode
from trainer.errors import ArchiveInvalid

from tests.trainer.conftest import Client
from tests.trainer.session_archive.conftest import (
    digest,
    entries,
    exported,
    forget,
    imported,
    objects,
    packed,
    refused,
    reindexed,
)


class TestRefusals:
    """Nothing appears of an archive with something wrong in it."""

    @pytest.fixture
    async def tar(self, client: Client, full: str, store: ObjectStore) -> AsyncIterator[bytes]:
        _, tar = await exported(client, full)
        forget(store)
        yield tar
        assert objects(store, "sessions/") == {}
        assert objects(store, "checkpoints/") == {}

    @pytest.mark.parametrize("path", ["captions/one.txt", "runs/first/recipe.json", "session.json", "weights.bin"])
    async def test_a_flipped_byte(self, client: Client, tar: bytes, path: str) -> None:
        contents = entries(tar)
        name = next(name for name in contents if name == path or name.endswith(f"/{path}"))
        data = bytearray(contents[name])
        data[len(data) // 2] ^= 1
        code, why, text = await refused(imported(client, packed({**contents, name: bytes(data)})))
        assert (code, why) == (StatusCode.INVALID_ARGUMENT, "ARCHIVE_DAMAGED")
        assert name in text
        assert digest(bytes(data)) in text

    async def test_a_flipped_byte_anywhere_in_the_index(self, client: Client, tar: bytes) -> None:
        contents = entries(tar)
        index = contents[NAME]
        for place in range(0, len(index), len(index) // 40):
            flipped = index[:place] + bytes([index[place] ^ 1]) + index[place + 1 :]
            with pytest.raises(ArchiveInvalid):
                decode(flipped)
        code, why, _ = await refused(imported(client, packed({**contents, NAME: flipped})))
        assert (code, why) == (StatusCode.INVALID_ARGUMENT, "ARCHIVE_INVALID")

    async def test_a_path_that_leads_out(self, client: Client, tar: bytes) -> None:
        changed = reindexed(tar, lambda contents: contents.update({"../evil.txt": b"evil"}))
        code, why, text = await refused(imported(client, changed))
        assert (code, why) == (StatusCode.INVALID_ARGUMENT, "ARCHIVE_INVALID")
        assert "'../evil.txt'" in text

    async def test_entries_that_are_too_large(self, client: Client, tar: bytes) -> None:
        changed = reindexed(tar, lambda contents: contents.update({"captions/one.txt": b"x" * 100_000}))
        code, why, text = await refused(imported(client, changed))
        assert (code, why) == (StatusCode.INVALID_ARGUMENT, "ARCHIVE_INVALID")
        assert "100000 bytes" in text

    @pytest.mark.parametrize(
        ("path", "data"),
        [
            ("runs/first/recipe.json", b"[]"),
            ("session.json", b"{}"),
            ("session.json", b"not JSON"),
        ],
    )
    async def test_records_that_are_none(self, client: Client, tar: bytes, path: str, data: bytes) -> None:
        code, why, text = await refused(imported(client, reindexed(tar, lambda found: found.update({path: data}))))
        assert (code, why) == (StatusCode.INVALID_ARGUMENT, "ARCHIVE_INVALID")
        assert path in text

    async def test_a_session_record_that_contradicts_the_index(self, client: Client, tar: bytes) -> None:
        code, why, _ = await refused(imported(client, reindexed(tar, lambda contents: None, description="another")))
        assert (code, why) == (StatusCode.INVALID_ARGUMENT, "ARCHIVE_INVALID")

    async def test_a_checkpoint_whose_manifest_lists_other_files(self, client: Client, tar: bytes) -> None:
        def add(contents: dict[str, bytes]) -> None:
            folder = next(path for path in contents if path.endswith("-single/manifest.json")).rsplit("/", 1)[0]
            contents[f"{folder}/more.bin"] = b"more"

        code, why, text = await refused(imported(client, reindexed(tar, add)))
        assert (code, why) == (StatusCode.INVALID_ARGUMENT, "ARCHIVE_INVALID")
        assert "other files" in text

    @pytest.mark.parametrize(
        "parts",
        [
            [],
            [pb.ImportSessionRequest(index=b"x")],
            [pb.ImportSessionRequest(header=pb.ImportHeader(index_bytes=5))],
            [pb.ImportSessionRequest(header=pb.ImportHeader(index_bytes=5)), pb.ImportSessionRequest(entry="a")],
            [pb.ImportSessionRequest(header=pb.ImportHeader(index_bytes=1)), pb.ImportSessionRequest(index=b"ab")],
        ],
    )
    async def test_messages_in_another_order(
        self, client: Client, tar: bytes, parts: list[pb.ImportSessionRequest]
    ) -> None:
        async def read() -> None:
            async for _ in client.sessions.ImportSession(iter(parts)):
                pass

        code, why, _ = await refused(read())
        assert (code, why) == (StatusCode.INVALID_ARGUMENT, "UPLOAD_MALFORMED")

    async def test_an_entry_that_was_not_asked_for(self, client: Client, tar: bytes) -> None:
        index = entries(tar)[NAME]
        call = client.sessions.ImportSession()
        await call.write(pb.ImportSessionRequest(header=pb.ImportHeader(index_bytes=len(index))))
        await call.write(pb.ImportSessionRequest(index=index))
        await call.read()
        await call.write(pb.ImportSessionRequest(entry="other.txt"))
        code, why, text = await refused(call.read())
        assert (code, why) == (StatusCode.INVALID_ARGUMENT, "UPLOAD_MALFORMED")
        assert "'other.txt'" in text

    async def test_an_end_before_everything_came(self, client: Client, tar: bytes) -> None:
        index = entries(tar)[NAME]
        call = client.sessions.ImportSession()
        await call.write(pb.ImportSessionRequest(header=pb.ImportHeader(index_bytes=len(index))))
        await call.write(pb.ImportSessionRequest(index=index))
        await call.read()
        await call.done_writing()
        assert (await refused(call.read()))[1] == "UPLOAD_MALFORMED"
