"""Import of sessions through real gRPC: every byte comes back, and what broke goes on."""

import asyncio
import json
from dataclasses import replace

import pytest
from artifacts.checkpoints import Checkpoints
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import session_pb2 as pb
from darkroom.trainer.v1 import training_pb2
from grpc import StatusCode
from trainer import session_placing
from trainer.archive_index import NAME, Entry
from trainer.archive_staging import ROOT

from tests.trainer.conftest import Client, order, watched
from tests.trainer.session_archive.conftest import (
    digest,
    entries,
    exported,
    forget,
    imported,
    objects,
    publish,
    refused,
)


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
