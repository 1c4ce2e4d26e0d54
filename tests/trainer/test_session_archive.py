"""Export and import of sessions through real gRPC: every byte comes back, what broke goes on, what is wrong is refused whole."""

import asyncio
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from artifacts.checkpoints import Checkpoints
from artifacts.records import encode
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import session_pb2 as pb
from darkroom.trainer.v1 import training_pb2
from grpc import StatusCode
from jobs.execution import Execution
from jobs.recipe import Recipe, StageSettings
from jobs.render import render
from jobs.run_spec import RunSpec
from trainer import session_placing
from trainer.archive_index import NAME, Entry, Index, decode, etag
from trainer.archive_staging import ROOT
from trainer.errors import ArchiveInvalid
from trainer.runs import Runs

from tests.trainer.conftest import Client, order, reason, upload, watched

FACTS = {
    "format": "diffusers",
    "architecture": "sd15",
    "kind": "dreambooth",
    "precision": "fp32",
    "prediction_type": "epsilon",
    "resolution": 64,
    "base_model": "sd15-tiny",
}
LONG = "ein sehr langer Name – " + "ü" * 60 + ".png"  # needs a pax header
WEIGHTS = bytes(range(256)) * 12_000  # 3 MB: several messages


@pytest.fixture
async def full(client: Client, photo: bytes, store: ObjectStore) -> str:
    """A session with everything: photos, captions, two runs, a checkpoint and a conversion of it."""
    wanted = pb.Session(base_model="sd15-tiny", description="a toy")
    made = await client.sessions.CreateSession(pb.CreateSessionRequest(session_id="robot", session=wanted))
    for name in ("one.png", "two.png"):
        await upload(client, made.name, name, photo)
    await client.sessions.SetCaption(pb.SetCaptionRequest(image=f"{made.name}/images/one.png", text="a robot"))
    store.put(f"{made.name}/instance_images/{LONG}", photo[:-1])  # by hand, and no whole picture
    store.put(f"{made.name}/instance_images/.DS_Store", b"litter")
    store.put(f"{made.name}/class_images/1.png", photo)
    for run_id in ("first", "second"):
        checkpoint = ended_run(store, run_id)
    publish(store, checkpoint, {"unet/weights.bin": WEIGHTS, "empty.txt": b""}, parents=("sd15-base",), session="robot")
    publish(store, f"{checkpoint}-single", {"model.bin": WEIGHTS[::-1]}, parents=(checkpoint,))
    publish(store, "stranger", {"model.bin": b"other"}, session="another")
    return "robot"


def ended_run(store: ObjectStore, run_id: str) -> str:
    """A run of the session as the bucket tells it, without executing one; its checkpoint's id."""
    recipe = Recipe(base_model="sd15-tiny", unet=StageSettings(5, 1e-3))
    spec = RunSpec("robot", run_id, recipe, "/models/sd15-tiny", f"robot-{run_id}-abcdef", datetime.now(UTC))
    Runs(store).create(spec, render(spec, Execution()))
    store.put(f"{spec.name}/events/01-00000001.jsonl", b"")
    return spec.checkpoint


def publish(store: ObjectStore, checkpoint: str, files: dict[str, bytes], **fields: object) -> None:
    with Checkpoints(store).begin(checkpoint, **FACTS, **fields) as writer:
        for path, data in files.items():
            writer.add_bytes(path, data)
        writer.publish({"loss": 0.25})


async def exported(client: Client, name: str, **fields: object) -> tuple[pb.ExportHeader, bytes]:
    """Header and bytes of an export."""
    fields = {"include_checkpoints": True, **fields}
    header, data = pb.ExportHeader(), b""
    async for part in client.sessions.ExportSession(pb.ExportSessionRequest(name=f"sessions/{name}", **fields)):
        if part.HasField("header"):
            header = part.header
        data += part.data
    return header, data


async def imported(
    client: Client, tar: bytes, session_id: str = "", stop_after: int | None = None
) -> tuple[pb.ImportResult, pb.MissingEntries]:
    """Import a tar as a client does; stop_after: go away after so many entries. Returns the result and what was missing."""
    contents = entries(tar)
    index = contents[NAME]
    call = client.sessions.ImportSession()
    await call.write(pb.ImportSessionRequest(header=pb.ImportHeader(session_id=session_id, index_bytes=len(index))))
    for start in range(0, len(index), 1000):
        await call.write(pb.ImportSessionRequest(index=index[start : start + 1000]))
    missing = (await call.read()).missing
    for number, path in enumerate(missing.paths):
        await call.write(pb.ImportSessionRequest(entry=path))
        data = contents[path]
        if number == stop_after:
            await call.write(pb.ImportSessionRequest(data=data[: len(data) // 2]))
            call.cancel()
            return pb.ImportResult(), missing
        for start in range(0, len(data), 1 << 20):
            await call.write(pb.ImportSessionRequest(data=data[start : start + (1 << 20)]))
        assert (await call.read()).stored == path
    await call.done_writing()
    return (await call.read()).result, missing


async def refused(call: object) -> tuple[StatusCode, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), reason(caught.value), caught.value.details() or ""


def entries(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def objects(store: ObjectStore, prefix: str) -> dict[str, bytes]:
    """Objects below a prefix; the folder names of checkpoints' writers are left out."""
    return {stat.key[len(prefix) :]: store.get(stat.key) for stat in store.list(prefix)}


def forget(store: ObjectStore) -> None:
    """An empty bucket, as on another machine."""
    for prefix in ("sessions/", "checkpoints/", "imports/"):
        store.delete_prefix(prefix)


def packed(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def reindexed(tar: bytes, change: Callable[[dict[str, bytes]], None], **session: str) -> bytes:
    """A tar of other contents whose index is right about them, as somebody could make it."""
    contents = entries(tar)
    index = decode(contents.pop(NAME))
    change(contents)
    listed = tuple(Entry(path, len(data), digest(data)) for path, data in sorted(contents.items()))
    return packed({NAME: Index({**index.session, **session}, listed).encode(), **contents})


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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


class TestImport:
    """Into an empty bucket, beside what is there, and again."""

    async def test_every_byte_comes_back(self, client: Client, full: str, store: ObjectStore) -> None:
        before = await exported(client, full)
        manifests = {each.id: each for each in Checkpoints(store).list()}
        images = await client.sessions.ListImages(pb.ListImagesRequest(parent="sessions/robot"))
        record = store.get("sessions/robot/session.json")
        forget(store)
        result, missing = await imported(client, before[1])
        assert (result.session.name, result.session.num_images, result.unchanged) == ("sessions/robot", 3, False)
        assert missing.size_bytes < missing.total_bytes  # two equal photos travel once
        assert await exported(client, full) == before
        assert store.get("sessions/robot/session.json") == record
        after = await client.sessions.ListImages(pb.ListImagesRequest(parent="sessions/robot"))
        assert [image for image in after.images if image.width_px] == [
            image for image in images.images if image.width_px
        ]
        found = {each.id: each for each in Checkpoints(store).list()}
        assert sorted(result.checkpoints) == [f"checkpoints/{checkpoint}" for checkpoint in sorted(found)]
        assert {key: replace(each, writer="") for key, each in found.items()} == {
            key: replace(each, writer="") for key, each in manifests.items() if key != "stranger"
        }
        for each in found.values():
            Checkpoints(store).verify(each)
        assert objects(store, ROOT) == {}

    async def test_under_another_name_beside_the_first(self, client: Client, full: str, store: ObjectStore) -> None:
        _, tar = await exported(client, full)
        result, missing = await imported(client, tar, "copy")
        assert (result.session.name, result.session.description) == ("sessions/copy", "a toy")
        assert list(result.checkpoints) == []
        assert not any(path.startswith("checkpoints/") for path in missing.paths)
        first, copy = Sessions(store).get("robot"), Sessions(store).get("copy")
        assert replace(first, name="copy") == copy
        theirs, ours = [entries((await exported(client, name))[1]) for name in ("robot", "copy")]
        differing = {path for path in theirs.keys() | ours.keys() if theirs.get(path) != ours.get(path)}
        assert differing == {NAME, "session.json"}
        result, missing = await imported(client, tar, "copy")
        assert (result.unchanged, list(missing.paths)) == (True, [])

    async def test_again_changes_nothing_and_says_so(self, client: Client, full: str, store: ObjectStore) -> None:
        _, tar = await exported(client, full)
        before = objects(store, "")
        result, missing = await imported(client, tar)
        assert (result.unchanged, list(result.checkpoints), list(missing.paths)) == (True, [], [])
        assert objects(store, "") == before

    async def test_checkpoints_can_follow_later(self, client: Client, full: str, store: ObjectStore) -> None:
        _, small = await exported(client, full, include_checkpoints=False)
        _, whole = await exported(client, full)
        forget(store)
        assert not (await imported(client, small))[0].unchanged
        result, missing = await imported(client, whole)
        assert (result.unchanged, len(result.checkpoints)) == (False, 2)
        assert {path.split("/")[0] for path in missing.paths} == {"checkpoints"}
        assert (await exported(client, full))[1] == whole

    async def test_a_broken_import_sends_the_rest_only(self, client: Client, full: str, store: ObjectStore) -> None:
        _, tar = await exported(client, full)
        forget(store)
        _, missing = await imported(client, tar, stop_after=4)
        sent = sum(len(entries(tar)[path]) for path in missing.paths[:4])
        assert (await refused(client.sessions.GetSession(pb.GetSessionRequest(name="sessions/robot"))))[0] == (
            StatusCode.NOT_FOUND
        )
        assert list(Checkpoints(store).list()) == []
        result, rest = await imported(client, tar)
        assert list(rest.paths) == list(missing.paths[4:])
        assert rest.size_bytes == missing.size_bytes - sent
        assert result.session.num_images == 3
        assert (await exported(client, full))[1] == tar

    async def test_a_session_of_other_content_is_named(self, client: Client, full: str, store: ObjectStore) -> None:
        _, tar = await exported(client, full)
        await client.sessions.SetCaption(pb.SetCaptionRequest(image="sessions/robot/images/two.png", text="new"))
        before = objects(store, "")
        code, why, text = await refused(imported(client, tar))
        assert (code, why) == (StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
        assert "'robot'" in text
        assert "captions/two.txt" in text
        assert objects(store, "") == before

    async def test_a_checkpoint_of_other_content_is_named_with_both_digests(
        self, client: Client, full: str, store: ObjectStore
    ) -> None:
        _, tar = await exported(client, full)
        manifest = next(path for path in entries(tar) if path.endswith("-single/manifest.json"))
        checkpoint = manifest.split("/")[1]
        forget(store)
        publish(store, checkpoint, {"model.bin": b"another"})
        found = Checkpoints(store).get(checkpoint)
        code, why, text = await refused(imported(client, tar))
        assert (code, why) == (StatusCode.ALREADY_EXISTS, "CHECKPOINT_DIFFERS")
        assert digest(entries(tar)[manifest]) in text
        assert digest(replace(found, writer="").encode()) in text
        assert objects(store, "sessions/") == {}

    async def test_foreign_objects_in_the_folder_are_not_taken_in(
        self, client: Client, full: str, store: ObjectStore
    ) -> None:
        _, tar = await exported(client, full)
        forget(store)
        store.put("sessions/robot/instance_images/mine.png", b"mine")
        code, _, text = await refused(imported(client, tar))
        assert (code, "instance_images/mine.png" in text) == (StatusCode.ALREADY_EXISTS, True)

    async def test_a_session_created_meanwhile_keeps_its_own(
        self, client: Client, full: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, tar = await exported(client, full)
        forget(store)
        place = session_placing.Placing._place

        def placed(placing: session_placing.Placing, entry: Entry) -> None:
            place(placing, entry)
            if entry.path.endswith("two.png"):
                Sessions(store).create("robot", description="of somebody else")

        monkeypatch.setattr(session_placing.Placing, "_place", placed)
        code, _, text = await refused(imported(client, tar))
        assert (code, "'robot'" in text) == (StatusCode.ALREADY_EXISTS, True)
        assert set(objects(store, "sessions/robot/")) == {"session.json"}
        assert Sessions(store).get("robot").description == "of somebody else"


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


async def test_an_imported_recipe_is_no_run_but_stays_with_the_session(
    client: Client, full: str, store: ObjectStore
) -> None:
    _, tar = await exported(client, full)
    forget(store)
    await imported(client, tar)
    runs = await client.training.ListRuns(training_pb2.ListRunsRequest(parent="sessions/robot"))
    assert list(runs.runs) == []
    recipe = json.loads(store.get("sessions/robot/runs/first/recipe.json"))
    assert recipe["recipe"]["base_model"] == "sd15-tiny"
    run = await client.training.CreateRun(order("sessions/robot", "steps 1", run_id="third"))
    assert (await watched(client, run.name))[-1].run.state == training_pb2.RUN_STATE_SUCCEEDED


async def test_imports_of_one_archive_at_once_end_well(client: Client, full: str, store: ObjectStore) -> None:
    _, tar = await exported(client, full, include_checkpoints=False)
    results = await asyncio.gather(imported(client, tar, "a"), imported(client, tar, "b"))
    assert [result.session.name for result, _ in results] == ["sessions/a", "sessions/b"]


class TestIndex:
    """What an index may say at all."""

    def test_it_comes_back_and_its_digest_is_the_etag(self) -> None:
        wanted = index("captions/one.txt", "checkpoints/a.b/manifest.json", "checkpoints/a.b/unet/x.bin")
        assert decode(wanted.encode()) == wanted
        assert etag(wanted.encode()) == digest(wanted.encode())
        assert wanted.checkpoints == ["a.b"]

    @pytest.mark.parametrize(
        "path",
        [
            "../evil.txt",
            "/etc/passwd",
            "instance_images/../session.json",
            "instance_images/../../other/session.json",
            "instance_images/.hidden.png",
            "instance_images/sub/one.png",
            "instance_images\\one.png",
            "instance_images/a\\b.png",
            "instance_images/a\nb.png",
            "instance_images/",
            "instance_images",
            "captions/one.exe",
            "runs/first/events/01-00000001.jsonl",
            "runs/../recipe.json",
            "checkpoints/UPPER/manifest.json",
            "checkpoints/../sessions/x",
            "checkpoints/ok/../../x",
            "checkpoints/ok",
            "checkpoints/no-manifest/model.bin",
            "class_images/1.png",
            "darkroom-session.json",
            "readme.txt",
            "",
        ],
    )
    def test_places_where_nothing_belongs(self, path: str) -> None:
        with pytest.raises(ArchiveInvalid) as caught:
            decode(index(path).encode())
        assert repr(path) in str(caught.value) or "no-manifest" in str(caught.value)

    @pytest.mark.parametrize(
        "entry",
        [
            {"path": "captions/a.txt", "size_bytes": -1, "sha256": "0" * 64},
            {"path": "captions/a.txt", "size_bytes": True, "sha256": "0" * 64},
            {"path": "captions/a.txt", "size_bytes": 1.5, "sha256": "0" * 64},
            {"path": "captions/a.txt", "size_bytes": 1, "sha256": "../../x"},
            {"path": "captions/a.txt", "size_bytes": 1, "sha256": "0" * 64, "width_px": "wide"},
            {"path": 7, "size_bytes": 1, "sha256": "0" * 64},
            {"size_bytes": 1},
            "captions/a.txt",
        ],
    )
    def test_entries_that_are_none(self, entry: object) -> None:
        record = json.loads(index().encode())
        record["entries"].insert(0, entry)
        with pytest.raises(ArchiveInvalid):
            decode(signed(record))

    def test_entries_come_once_and_in_order(self) -> None:
        record = json.loads(index("captions/a.txt", "captions/b.txt").encode())
        for entries in (record["entries"][::-1], [*record["entries"], record["entries"][-1]]):
            with pytest.raises(ArchiveInvalid, match="order of path"):
                decode(signed({**record, "entries": entries}))

    @pytest.mark.parametrize("schema", [0, 2, "1"])
    def test_other_schemas(self, schema: object) -> None:
        with pytest.raises(ArchiveInvalid, match="schema"):
            decode(signed({**json.loads(index().encode()), "schema": schema}))

    @pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b'{"schema": 1}'])
    def test_what_is_no_index(self, data: bytes) -> None:
        with pytest.raises(ArchiveInvalid):
            decode(data)


def index(*paths: str) -> Index:
    """An index of session.json and these."""
    listed = tuple(Entry(path, 1, digest(path.encode())) for path in sorted({*paths, "session.json"}))
    return Index({"name": "robot"}, listed)


def signed(record: dict[str, object]) -> bytes:
    """An index that says this and guards it, as somebody could make it."""
    guarded = {name: value for name, value in record.items() if name != "sha256"}
    return encode(guarded | {"sha256": digest(encode(guarded))})
