"""Export of sessions through real gRPC: every byte is in the tar, and what broke goes on."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import session_pb2 as pb
from grpc import StatusCode
from trainer.archive_index import NAME

from tests.trainer.conftest import Client
from tests.trainer.session_archive.conftest import LONG, WEIGHTS, digest, entries, exported, refused


class TestExport:
    """The tar and its stream."""

    async def test_it_holds_what_belongs_to_the_session(self, client: Client, full: str, photo: bytes) -> None:
        header, tar = await exported(client, full)
        contents = entries(tar)
        checkpoints = sorted({path.split("/")[1] for path in contents if path.startswith("checkpoints/")})
        assert len(checkpoints) == header.num_checkpoints == 2
        assert checkpoints[1] == f"{checkpoints[0]}-single"
        assert list(contents) == [NAME, *sorted(contents.keys() - {NAME})]
        assert contents.keys() - {path for path in contents if path.startswith("checkpoints/")} == {
            NAME,
            "session.json",
            "captions/one.txt",
            "instance_images/one.png",
            "instance_images/two.png",
            f"instance_images/{LONG}",
            "runs/first/recipe.json",
            "runs/second/recipe.json",
        }
        assert contents["instance_images/one.png"] == photo
        assert contents[f"checkpoints/{checkpoints[0]}/unet/weights.bin"] == WEIGHTS
        recipe = json.loads(contents["runs/second/recipe.json"])
        assert (recipe["checkpoint"], recipe["recipe"]["unet"]["steps"]) == (checkpoints[0], 5)
        assert "base_model_source" not in recipe["recipe"]
        assert (header.size_bytes, header.num_entries) == (len(tar), len(contents) - 1)
        assert header.etag == digest(contents[NAME])

    async def test_the_index_says_size_and_digest_of_everything(self, client: Client, full: str) -> None:
        contents = entries((await exported(client, full))[1])
        index = json.loads(contents.pop(NAME))
        assert [item["path"] for item in index["entries"]] == list(contents)
        assert {item["path"]: item["sha256"] for item in index["entries"]} == {
            k: digest(v) for k, v in contents.items()
        }
        one = next(item for item in index["entries"] if item["path"].endswith("one.png"))
        assert (one["width_px"], one["height_px"]) == (96, 64)
        assert index["session"]["description"] == "a toy"

    async def test_two_exports_are_equal(self, client: Client, full: str) -> None:
        assert await exported(client, full) == await exported(client, full)

    async def test_without_checkpoints(self, client: Client, full: str) -> None:
        header, tar = await exported(client, full, include_checkpoints=False)
        assert header.num_checkpoints == 0
        assert [path for path in entries(tar) if path.startswith("checkpoints/")] == []

    async def test_tar_reads_it(self, client: Client, full: str, tmp_path: Path) -> None:
        _, tar = await exported(client, full)
        (tmp_path / "robot.tar").write_bytes(tar)
        done = subprocess.run(["tar", "xf", "robot.tar"], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert (tmp_path / "instance_images" / LONG).is_file()

    async def test_it_goes_on_at_every_kind_of_place(self, client: Client, full: str) -> None:
        header, tar = await exported(client, full)
        places = {0, 1, 511, 512, 700, len(tar) // 2, len(tar) - 1025, len(tar) - 1, len(tar)}
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            for member in archive:
                places |= {member.offset, member.offset_data, member.offset_data + member.size}
        for place in sorted(place for place in places if place <= len(tar)):
            assert (await exported(client, full, offset=place, etag=header.etag))[1] == tar[place:], place

    async def test_a_broken_export_goes_on(self, client: Client, full: str) -> None:
        header, tar = await exported(client, full)
        call = client.sessions.ExportSession(pb.ExportSessionRequest(name="sessions/robot", include_checkpoints=True))
        await call.read()
        begun = (await call.read()).data
        call.cancel()
        assert 0 < len(begun) < len(tar)
        assert begun + (await exported(client, full, offset=len(begun), etag=header.etag))[1] == tar

    async def test_a_session_that_changed_is_told_before_a_byte_is_sent(self, client: Client, full: str) -> None:
        header, _ = await exported(client, full)
        await client.sessions.SetCaption(pb.SetCaptionRequest(image="sessions/robot/images/two.png", text="new"))
        code, why, text = await refused(exported(client, full, offset=100, etag=header.etag))
        assert (code, why) == (StatusCode.ABORTED, "SESSION_CHANGED")
        assert header.etag in text

    @pytest.mark.parametrize("change", ["other bytes", "shorter", "gone"])
    async def test_a_session_that_changes_while_it_is_read(
        self, client: Client, full: str, store: ObjectStore, photo: bytes, change: str
    ) -> None:
        # Enough before the last image that the service cannot have read it when the first block is here.
        store.put("sessions/robot/instance_images/a.png", b"x" * (48 << 20))
        request = pb.ExportSessionRequest(name="sessions/robot")
        call = client.sessions.ExportSession(request)
        await call.read()
        await call.read()
        if change == "gone":
            store.delete("sessions/robot/instance_images/two.png")
        else:
            store.put("sessions/robot/instance_images/two.png", b"y" * (len(photo) - (change == "shorter")))

        async def rest() -> None:
            async for _ in call:
                pass

        code, why, text = await refused(rest())
        assert (code, why) == (StatusCode.ABORTED, "SESSION_CHANGED")
        assert "two.png" in text

    async def test_an_offset_beyond_the_end(self, client: Client, full: str) -> None:
        header, tar = await exported(client, full)
        code, why, _ = await refused(exported(client, full, offset=len(tar) + 1, etag=header.etag))
        assert (code, why) == (StatusCode.OUT_OF_RANGE, "OFFSET_BEYOND_END")

    async def test_unknown_sessions_and_files_that_would_not_come_back(
        self, client: Client, full: str, store: ObjectStore
    ) -> None:
        assert (await refused(exported(client, "nobody")))[0] == StatusCode.NOT_FOUND
        store.put("sessions/robot/captions/one.txt", b"x" * 100_000)
        code, why, text = await refused(exported(client, full))
        assert (code, why) == (StatusCode.FAILED_PRECONDITION, "SESSION_NOT_EXPORTABLE")
        assert "captions/one.txt" in text
