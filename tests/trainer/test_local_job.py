"""Runs as processes of this machine: retries by exit code, cancel, and what outlives the service."""

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import training_pb2 as pb
from darkroom_cli.launcher import child
from trainer import local_job, local_supervisor
from trainer.config import TrainerConfig
from trainer.run_folder import RunFolder, machine_id, started

from tests.trainer.conftest import Client, filled, order, serving, steps, until_message, watched


async def until_gone(pid: int) -> None:
    """Wait for the end of a process; the test's own time limit bounds it."""
    while started(pid):
        await asyncio.sleep(0.02)


async def held(client: Client, name: str) -> int:
    """Process id of a stand-in program that holds."""
    return int((await until_message(client, name, "holding as")).rsplit(" ", 1)[1])


async def test_a_failure_that_may_pass_is_retried(client: Client, session: str, store: ObjectStore) -> None:
    run = await client.training.CreateRun(order(session, "steps 3, exit 75", "steps 3, crash", "steps 5"))
    events = await watched(client, run.name)
    done = events[-1].run
    assert (done.state, done.num_attempts, done.exit_code) == (pb.RUN_STATE_SUCCEEDED, 3, 0)
    assert steps(events) == [1, 2, 3, 4, 5]
    assert steps(await watched(client, run.name)) == [1, 2, 3, 4, 5]
    assert [event.message for event in events if event.message.startswith("error")] == ["error: no luck with 75"]
    log = store.get(f"{run.name}/log.txt").decode()
    assert all(f"attempt {number} of" in log for number in (1, 2, 3))


async def test_wrong_input_is_not_retried(client: Client, session: str) -> None:
    run = await client.training.CreateRun(order(session, "steps 1, exit 65"))
    done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts, done.exit_code) == (pb.RUN_STATE_FAILED, 1, 65)
    assert done.error == "no luck with 65 (exit code 65: the input is wrong)"


async def test_retries_end(config: TrainerConfig, photo: bytes) -> None:
    async with serving(replace(config, backoff_limit=1)) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "crash"))
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts, done.exit_code) == (pb.RUN_STATE_FAILED, 2, 137)
    assert "attempt 2 of at most 2 failed" in done.error


async def test_a_program_that_cannot_start_says_so(config: TrainerConfig, photo: bytes) -> None:
    async with serving(
        replace(config, local=replace(config.local, run_command="no-such-program --at-all"), backoff_limit=0)
    ) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "steps 1"))
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.exit_code) == (pb.RUN_STATE_FAILED, 127)
    assert "no-such-program" in done.error


async def test_a_manifest_in_the_bucket_does_not_choose_what_runs_here(
    client: Client, session: str, store: ObjectStore, tmp_path: Path
) -> None:
    run = await client.training.CreateRun(order(session, "exit 65"))
    await watched(client, run.name)
    job = json.loads(store.get(f"{run.name}/job.json"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["command"] = ["touch", str(tmp_path / "harm")]
    container["env"].append({"name": "PYTHONPATH", "value": str(tmp_path)})
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')")
    store.put(f"{run.name}/job.json", json.dumps(job).encode())
    await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
    done = (await watched(client, run.name))[-1].run
    assert (done.state, done.exit_code, done.num_attempts) == (pb.RUN_STATE_FAILED, 65, 2)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("behaviour", ["hold", "stubborn"])
async def test_cancel_stops_the_program(client: Client, session: str, behaviour: str) -> None:
    run = await client.training.CreateRun(order(session, f"steps 2, {behaviour}"))
    pid = await held(client, run.name)
    cancelling = await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
    assert cancelling.state in (pb.RUN_STATE_CANCELLING, pb.RUN_STATE_CANCELLED)
    done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts) == (pb.RUN_STATE_CANCELLED, 1)
    assert done.exit_code == (143 if behaviour == "hold" else 137)
    assert not started(pid)
    again = await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
    assert again.state == pb.RUN_STATE_CANCELLED


async def test_a_run_outlives_the_service(config: TrainerConfig, photo: bytes) -> None:
    config = replace(config, stop_runs=False)
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "steps 2, hold", "steps 5"))
        pid = await held(client, run.name)
    assert started(pid)
    async with serving(config) as client:
        listed = await client.training.ListRuns(pb.ListRunsRequest(parent="sessions/-"))
        assert [(found.name, found.state) for found in listed.runs] == [(run.name, pb.RUN_STATE_RUNNING)]
        os.kill(pid, signal.SIGTERM)
        events = await watched(client, run.name)
    assert steps(events) == [1, 2, 3, 4, 5]
    assert (events[-1].run.state, events[-1].run.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 2)


@pytest.mark.parametrize("behaviour", ["hold", "stubborn"])
async def test_runs_stop_with_the_service_and_go_on_with_it(
    config: TrainerConfig, photo: bytes, behaviour: str
) -> None:
    async with serving(replace(config, backoff_limit=0)) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), f"steps 2, {behaviour}", "steps 5"))
        pid = await held(client, run.name)
        supervisor = RunFolder.of(config.local.state_dir, run.name).pid()
        assert supervisor is not None
    assert not started(pid)
    assert not started(supervisor)
    async with serving(replace(config, backoff_limit=0)) as client:
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 2)


def test_the_launcher_waits_until_runs_have_stopped() -> None:
    drain_seconds, flush_seconds = 3, 1
    assert local_supervisor.STOP_GRACE_SECONDS < local_job.STOP_SECONDS
    assert local_job.STOP_SECONDS + drain_seconds + flush_seconds < child.STOP_SECONDS


async def test_what_a_killed_program_leaves_behind_is_removed(client: Client, session: str) -> None:
    run = await client.training.CreateRun(order(session, "litter, crash", "litter, steps 5"))
    done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 2)
    folder = RunFolder.of(client.config.local.state_dir, run.name).path
    assert str(folder / "tmp") in (folder / "run.log").read_text()
    assert not (folder / "tmp").exists()


async def test_a_killed_supervisor_is_replaced_and_its_program_ended(client: Client, session: str) -> None:
    run = await client.training.CreateRun(order(session, "steps 2, stubborn", "steps 5"))
    pid = await held(client, run.name)
    supervisor = RunFolder.of(client.config.local.state_dir, run.name).pid()
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 2)
    await until_gone(pid)


async def test_a_run_of_another_machine_is_left_alone(config: TrainerConfig, photo: bytes, tmp_path: Path) -> None:
    other = replace(config, local=replace(config.local, state_dir=tmp_path / "other"))
    async with serving(config) as client, serving(other) as stranger:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        await held(stranger, run.name)
        assert stranger.trainer.training.unfinished() == []
        await stranger.training.CancelRun(pb.CancelRunRequest(name=run.name))
        assert (await watched(stranger, run.name))[-1].run.state == pb.RUN_STATE_CANCELLED
    assert not (tmp_path / "other" / "runs").exists()


def test_only_one_holds_the_lock(tmp_path: Path) -> None:
    folder = RunFolder.of(tmp_path, "sessions/robot/runs/first")
    assert not folder.locked()
    descriptor = folder.lock()
    assert descriptor is not None
    assert folder.locked()
    assert folder.lock() is None
    os.close(descriptor)
    assert not folder.locked()


def test_a_reused_process_id_is_not_the_program(tmp_path: Path) -> None:
    folder = RunFolder.of(tmp_path, "sessions/robot/runs/first")
    folder.path.mkdir(parents=True)
    folder.write_child(os.getpid())
    assert folder.child() == os.getpid()
    (folder.path / "child.json").write_text(f'{{"pid": {os.getpid()}, "started": "1"}}')
    assert folder.child() is None


def test_a_machine_keeps_its_id(tmp_path: Path) -> None:
    assert machine_id(tmp_path) == machine_id(tmp_path)
    assert machine_id(tmp_path) != machine_id(tmp_path / "other")
