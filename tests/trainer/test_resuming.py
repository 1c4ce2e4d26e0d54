"""Runs that were over and go on: ResumeRun and ListResumePoints as their clients see them."""

import asyncio
import hashlib
import json
import urllib.request
from dataclasses import replace

import grpc
import pytest
from artifacts.records import encode
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import session_pb2 as session_pb
from darkroom.trainer.v1 import training_pb2 as pb
from grpc import StatusCode
from trainer import resuming, session_lock
from trainer.config import TrainerConfig
from trainer.errors import RunActive
from trainer.runs import Runs, RunState

from tests.trainer.conftest import Client, filled, order, reason, serving, steps, until_message, watched


async def resumed(client: Client, name: str, accept_inexact: bool = False) -> pb.Run:
    return await client.training.ResumeRun(pb.ResumeRunRequest(name=name, accept_inexact=accept_inexact))


async def points(client: Client, name: str) -> list[pb.ResumePoint]:
    return list((await client.training.ListResumePoints(pb.ListResumePointsRequest(parent=name))).resume_points)


async def ended(client: Client, session: str, *plan: str, **fields: object) -> pb.Run:
    run = await client.training.CreateRun(order(session, *plan, **fields))
    return (await watched(client, run.name))[-1].run


async def refusal(call: object) -> tuple[StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), reason(caught.value)


class TestResumeRun:
    """FAILED and CANCELLED runs go on."""

    async def test_a_failed_run_goes_on_with_its_attempts_and_curve(self, client: Client, session: str) -> None:
        failed = await ended(client, session, "steps 3, point 3, exit 65", "steps 5")
        assert (failed.state, failed.error != "") == (pb.RUN_STATE_FAILED, True)
        run = await resumed(client, failed.name)
        assert (run.state, run.error, run.HasField("end_time")) == (pb.RUN_STATE_RUNNING, "", False)
        events = await watched(client, run.name)
        done = events[-1].run
        assert (done.state, done.num_attempts, done.exit_code) == (pb.RUN_STATE_SUCCEEDED, 2, 0)
        assert done.checkpoint == failed.checkpoint
        assert steps(events) == [1, 2, 3, 4, 5]

    async def test_earlier_failures_count_no_longer(self, config: TrainerConfig, photo: bytes) -> None:
        async with serving(replace(config, backoff_limit=1)) as client:
            failed = await ended(client, await filled(client, photo), *["exit 75"] * 3, "exit 0")
            assert (failed.state, failed.num_attempts) == (pb.RUN_STATE_FAILED, 2)
            await resumed(client, failed.name)
            done = (await watched(client, failed.name))[-1].run
        assert (done.state, done.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 4)

    async def test_a_cancelled_run_goes_on_and_can_be_cancelled_again(self, client: Client, session: str) -> None:
        run = await client.training.CreateRun(order(session, "steps 2, hold", "hold", "exit 0"))
        for attempt in (1, 2):
            await until_message(client, run.name, "holding", times=attempt)
            await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
            assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_CANCELLED
            assert (await resumed(client, run.name)).state == pb.RUN_STATE_RUNNING
        assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_SUCCEEDED

    async def test_a_run_that_is_not_over_is_returned_as_it_is(self, client: Client, session: str) -> None:
        run = await client.training.CreateRun(order(session, "hold"))
        await until_message(client, run.name, "holding")
        again = await resumed(client, run.name, accept_inexact=True)
        assert (again.state, again.num_attempts) == (pb.RUN_STATE_RUNNING, 1)

    async def test_a_succeeded_run_is_finished(self, client: Client, session: str) -> None:
        done = await ended(client, session, "exit 0")
        assert await refusal(resumed(client, done.name)) == (StatusCode.FAILED_PRECONDITION, "RUN_FINISHED")

    async def test_another_run_of_the_session_is_in_the_way(
        self, client: Client, session: str, store: ObjectStore
    ) -> None:
        failed = await ended(client, session, "exit 65", "exit 0")
        other = await client.training.CreateRun(order(session, "hold"))
        assert await refusal(resumed(client, failed.name)) == (StatusCode.FAILED_PRECONDITION, "RUN_ACTIVE")
        await client.training.CancelRun(pb.CancelRunRequest(name=other.name))
        await watched(client, other.name)
        await resumed(client, failed.name)
        assert await refusal(client.training.CreateRun(order(session, "hold"))) == (
            StatusCode.FAILED_PRECONDITION,
            "RUN_ACTIVE",
        )
        assert (await watched(client, failed.name))[-1].run.state == pb.RUN_STATE_SUCCEEDED

    async def test_of_many_at_once_one_wins_and_the_others_get_its_run(self, client: Client, session: str) -> None:
        failed = await ended(client, session, "exit 65", "hold")
        answers = await asyncio.gather(*[resumed(client, failed.name) for _ in range(8)])
        assert {answer.name for answer in answers} == {failed.name}
        await until_message(client, failed.name, "holding")
        run = await client.training.GetRun(pb.GetRunRequest(name=failed.name))
        assert (run.state, run.num_attempts) == (pb.RUN_STATE_RUNNING, 2)

    async def test_resuming_and_creating_at_once_leave_one_run(self, client: Client, session: str) -> None:
        failed = await ended(client, session, "exit 65", "hold")
        calls = [resumed(client, failed.name), *[client.training.CreateRun(order(session, "hold")) for _ in range(4)]]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        errors = {reason(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
        assert errors <= {"RUN_ACTIVE"}
        listed = await client.training.ListRuns(pb.ListRunsRequest(parent=session))
        assert len([run for run in listed.runs if run.state == pb.RUN_STATE_RUNNING]) <= 1
        assert len([answer for answer in answers if isinstance(answer, pb.Run)]) == 1

    async def test_unknown_runs(self, client: Client, session: str) -> None:
        name = f"{session}/runs/nothing"
        assert (await refusal(resumed(client, name)))[0] == StatusCode.NOT_FOUND
        assert (await refusal(points(client, name)))[0] == StatusCode.NOT_FOUND

    async def test_a_run_of_another_machine(self, config: TrainerConfig, photo: bytes) -> None:
        other = replace(config, local=replace(config.local, state_dir=config.local.state_dir / "other"))
        async with serving(config) as client, serving(other) as stranger:
            failed = await ended(client, await filled(client, photo), "exit 65")
            assert (await refusal(resumed(stranger, failed.name)))[1] == "RUN_ELSEWHERE"


class TestInexact:
    """What goes on although something has changed says so."""

    async def test_only_when_it_is_accepted(self, client: Client, session: str, store: ObjectStore) -> None:
        failed = await ended(client, session, "point 2, exit 75", "inexact, point 4, steps 5, publish")
        assert (failed.state, failed.exit_code, failed.inexact) == (pb.RUN_STATE_FAILED, 69, False)
        assert failed.error == (
            "the images changed "
            "(exit code 69: the resume point does not fit what is here now, a record is damaged, or the machine is too small)"
        )
        await resumed(client, failed.name)
        assert (await watched(client, failed.name))[-1].run.exit_code == 69
        await resumed(client, failed.name, accept_inexact=True)
        done = (await watched(client, failed.name))[-1].run
        assert (done.state, done.num_attempts, done.inexact) == (pb.RUN_STATE_SUCCEEDED, 4, True)
        listed = await client.training.ListRuns(pb.ListRunsRequest(parent=session))
        assert [run.inexact for run in listed.runs] == [True]
        store.delete(f"{done.checkpoint}/manifest.json")
        assert (await client.training.GetRun(pb.GetRunRequest(name=done.name))).inexact

    async def test_accepting_where_nothing_changed_is_exact(self, client: Client, session: str) -> None:
        failed = await ended(client, session, "point 2, exit 65", "steps 5, exit 0")
        await resumed(client, failed.name, accept_inexact=True)
        assert not (await watched(client, failed.name))[-1].run.inexact

    async def test_damaged_records_do_not_hide_the_run(self, client: Client, session: str, store: ObjectStore) -> None:
        failed = await ended(client, session, "point 2, exit 75", "inexact")
        store.put(f"{failed.name}/writer.json", b"{")
        assert not (await client.training.GetRun(pb.GetRunRequest(name=failed.name))).inexact


class TestListResumePoints:
    """Complete resume points, newest first."""

    async def test_newest_first_with_their_sizes(self, client: Client, session: str) -> None:
        run = await client.training.CreateRun(order(session, "point 2, point 4, exit 0"))
        events = await watched(client, run.name)
        shown = [event.resume_point for event in events if event.WhichOneof("event") == "resume_point"]
        assert [(point.step, point.size_bytes, point.stage) for point in shown] == [
            (2, 4, pb.STAGE_UNET),
            (4, 4, pb.STAGE_UNET),
        ]
        assert shown[0].stall.ToTimedelta().total_seconds() == 0.25
        found = await points(client, run.name)
        assert [point.step for point in found] == [4, 2]
        assert [point.object for point in found] == [point.object for point in reversed(shown)]
        assert found[0].time.seconds > 0
        assert not found[0].HasField("stall")

    async def test_none_before_the_first(self, client: Client, session: str) -> None:
        done = await ended(client, session, "exit 0")
        assert await points(client, done.name) == []

    @pytest.mark.parametrize(
        ("path", "data"),
        [
            ("writer.json", b"{"),
            ("writer.json", b'{"schema": 1}'),
            ("writer.json", b'{"schema": 1, "points": [{"name": "../../x", "sha256": "0"}]}'),
            ("resume_points/1-1-0000002/manifest.json", b"{}"),
            ("resume_points/1-1-0000002/manifest.json", None),
        ],
    )
    async def test_damage_is_named(
        self, client: Client, session: str, store: ObjectStore, path: str, data: bytes | None
    ) -> None:
        done = await ended(client, session, "point 2, exit 0")
        key = f"{done.name}/{path}"
        store.delete(key) if data is None else store.put(key, data)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await points(client, done.name)
        assert (caught.value.code(), reason(caught.value)) == (StatusCode.FAILED_PRECONDITION, "RECORD_INVALID")
        assert path in (caught.value.details() or "")

    async def test_a_manifest_with_other_content_but_the_right_digest(
        self, client: Client, session: str, store: ObjectStore
    ) -> None:
        done = await ended(client, session, "point 2, exit 0")
        data = json.dumps({"schema": 1, "stage": "vae", "step": "2", "files": [{}]}).encode()
        store.put(f"{done.name}/resume_points/1-1-0000002/manifest.json", data)
        listed = {"name": "1-1-0000002", "sha256": hashlib.sha256(data).hexdigest()}
        store.put(f"{done.name}/writer.json", json.dumps({"schema": 1, "points": [listed]}).encode())
        with pytest.raises(grpc.aio.AioRpcError, match=r"'vae'.*step: int expected.*time: missing|files\[0\]"):
            await points(client, done.name)


class TestLock:
    """Between taking the lock and making the run one that is not over, another run can take the session."""

    @pytest.fixture
    async def failed(self, client: Client, session: str) -> str:
        return str((await ended(client, session, "exit 65")).name)

    async def test_the_slower_one_leaves_its_run_as_it_was(
        self, client: Client, session: str, store: ObjectStore, failed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs, before = Runs(store), store.get(f"{failed}/status.json")
        ours = runs.resume

        def overtaken(name: str, accept_inexact: bool) -> object:
            store.put(f"{session}/runs/active.json", encode({"schema": 1, "run": "x", "time": "2026-01-01T00:00:00Z"}))
            return ours(name, accept_inexact)

        monkeypatch.setattr(runs, "resume", overtaken)
        owner = runs.manifest(failed)[0].owner
        with pytest.raises(RunActive, match="x of session 'robot'"):
            resuming.resume(runs, failed, False, owner)
        assert store.get(f"{failed}/status.json") == before

    async def test_whoever_found_the_run_over_takes_the_lock_no_longer(
        self, client: Client, session: str, store: ObjectStore, failed: str
    ) -> None:
        runs = Runs(store)
        found = session_lock.holder(runs, "robot")
        assert found is not None
        assert resuming.resume(runs, failed, False, runs.manifest(failed)[0].owner)
        assert runs.get(failed).state in (RunState.RUNNING, RunState.SUCCEEDED, RunState.FAILED)
        with pytest.raises(RunActive):
            session_lock.confirm(runs, "robot", "sessions/robot/runs/other", found.etag)


async def test_a_session_with_a_resumed_run_is_not_deleted(client: Client, session: str) -> None:
    failed = await ended(client, session, "exit 65", "hold")
    await resumed(client, failed.name)
    await until_message(client, failed.name, "holding")
    request = session_pb.DeleteSessionRequest(name=session)
    assert (await refusal(client.sessions.DeleteSession(request)))[1] == "RUN_ACTIVE"


async def test_a_resumed_run_is_looked_after_and_counted_once(client: Client, session: str) -> None:
    failed = await ended(client, session, "steps 3, exit 65", "steps 4, hold")

    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{client.metrics_port}/metrics") as answer:
            return str(answer.read().decode())

    async def shows(line: str) -> None:
        while line not in await asyncio.to_thread(scrape):
            await asyncio.sleep(0.05)

    await shows('darkroom_runs{state="FAILED"} 1.0')
    await resumed(client, failed.name)
    await shows('darkroom_training_steps_total{stage="unet"} 4.0')
    await shows('darkroom_runs{state="RUNNING"} 1.0')
    assert 'darkroom_runs{state="FAILED"} 0.0' in await asyncio.to_thread(scrape)
