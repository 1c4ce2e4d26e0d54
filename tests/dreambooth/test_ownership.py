"""A writer that was replaced cannot publish, at whatever moment it was paused: a real process, stopped and woken up."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from artifacts.checkpoints import Checkpoints, CheckpointWriter, Manifest
from artifacts.errors import AlreadyExists, Conflict
from artifacts.store import ObjectStore
from dreambooth import exits, ownership
from dreambooth.errors import LeaseLost, NotOurs
from dreambooth.exits import StopSignal
from dreambooth.lease import Lease

from tests.conftest import TRAINED

RUN = "sessions/toy/runs/first"
KEY = "checkpoints/toy-first/manifest.json"
# Of the process that is paused: so short that the test need not wait long for its silence.
SECONDS = 1.0
FIELDS = TRAINED | {"session": "toy", "run": "first"}

# Publishes, but stops itself (SIGSTOP) at one moment: argument 1. "holding": after it got the lease, "uploaded": before
# it reserves, "reserved": before it looks at its lease, "confirmed": after that, right before the write of the manifest.
_PUBLISH = """
import json, os, signal, sys
from artifacts.checkpoints import Checkpoints
from artifacts.errors import AlreadyExists
from artifacts.store import ObjectStore, StoreConfig
from dreambooth import exits, ownership
from dreambooth.exits import StopSignal
from dreambooth.lease import Lease
moment, fields, run, seconds, *place = sys.argv[1:]
checkpoints = Checkpoints(ObjectStore(StoreConfig(*place)))

def pause(at):
    if at == moment:
        os.kill(os.getpid(), signal.SIGSTOP)

def then(call, at):
    def both(*arguments):
        result = call(*arguments)
        pause(at)
        return result
    return both

try:
    with Lease.acquire(checkpoints.store, run + "/", StopSignal(), float(seconds)) as lease:
        assert not ownership.take_over(checkpoints, "toy-first", run, lease)
        pause("holding")
        lease.confirm = then(lease.confirm, "confirmed")
        checkpoints.reserve = then(checkpoints.reserve, "reserved")
        with checkpoints.begin("toy-first", **json.loads(fields)) as writer:
            writer.add_bytes("weights", b"of the old process")
            pause("uploaded")
            ownership.publish(checkpoints, writer, "toy-first", run, lease, {})
except AlreadyExists:  # as in dreambooth.publish
    ownership.require_ours(checkpoints.get("toy-first"), run)
except Exception as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(exits.code(error))
"""
MOMENTS = ("holding", "uploaded", "reserved", "confirmed")


class Old:
    """The process that was paused."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def wake(self) -> tuple[int, str]:
        """Let it go on to its end: exit code and what it said."""
        self._process.send_signal(signal.SIGCONT)
        _, said = self._process.communicate(timeout=60)
        return self._process.returncode, said


@pytest.fixture
def paused(store: ObjectStore) -> Iterator[Callable[[str], Old]]:
    """Start the process and wait until it is paused at a moment."""
    config, started = store.config, []

    def start(moment: str) -> Old:
        place = [config.endpoint, config.access_key, config.secret_key, config.bucket]
        command = [sys.executable, "-c", _PUBLISH, moment, json.dumps(FIELDS), RUN, str(SECONDS), *place]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), process.communicate()
        return Old(process)

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def checkpoints(store: ObjectStore) -> Checkpoints:
    return Checkpoints(store)


def acquire(store: ObjectStore, run: str = RUN) -> Lease:
    return Lease.acquire(store, f"{run}/", StopSignal(), SECONDS)


def write(checkpoints: Checkpoints, content: bytes = b"of the new process", **changes: Any) -> CheckpointWriter:
    writer = checkpoints.begin("toy-first", **{**FIELDS, **changes})
    writer.add_bytes("weights", content)
    return writer


def publish(checkpoints: Checkpoints, lease: Lease, metrics: Mapping[str, Any] | None = None) -> Manifest:
    with write(checkpoints) as writer:
        ownership.publish(checkpoints, writer, "toy-first", RUN, lease, metrics or {})
    return checkpoints.get("toy-first")


@pytest.mark.parametrize("moment", MOMENTS)
def test_who_was_replaced_does_not_publish_while_its_successor_trains(
    checkpoints: Checkpoints, paused: Callable[[str], Old], moment: str
) -> None:
    old = paused(moment)
    with acquire(checkpoints.store) as lease:
        assert lease.token == 2
        assert not ownership.take_over(checkpoints, "toy-first", RUN, lease)
        code, said = old.wake()
        assert code == 78, said
        assert f"LeaseLost: the run was taken over by process {os.getpid()} on host" in said
        assert list(checkpoints.list()) == []
        assert not ownership.is_published(checkpoints, "toy-first", RUN)
        manifest = publish(checkpoints, lease, {"steps": 5})
    assert manifest.metrics == {"steps": 5}
    assert checkpoints.read_file(checkpoints.verify("toy-first"), "weights") == b"of the new process"
    assert len(list(checkpoints.store.list("checkpoints/"))) == 2


@pytest.mark.parametrize("moment", MOMENTS)
def test_who_was_replaced_leaves_what_its_successor_published(
    checkpoints: Checkpoints, paused: Callable[[str], Old], moment: str
) -> None:
    old = paused(moment)
    with acquire(checkpoints.store) as lease:
        assert not ownership.take_over(checkpoints, "toy-first", RUN, lease)
        manifest = publish(checkpoints, lease)
        code, said = old.wake()
    # Where it looks at the checkpoint first, the run is finished; where at the lease, it has lost it.
    assert code == (78 if moment == "reserved" else 0), said
    assert checkpoints.verify("toy-first") == manifest
    assert checkpoints.read_file(manifest, "weights") == b"of the new process"
    assert len(list(checkpoints.store.list("checkpoints/"))) == 2


def test_who_was_replaced_while_both_publish(checkpoints: Checkpoints, paused: Callable[[str], Old]) -> None:
    """The successor holds its reservation; the old process wakes up, puts its own over it, and is told."""
    old = paused("uploaded")
    with acquire(checkpoints.store) as lease, write(checkpoints) as writer:
        assert not ownership.take_over(checkpoints, "toy-first", RUN, lease)
        confirm = lease.confirm
        ends: list[int] = []

        def confirm_and_wake() -> None:
            confirm()
            if not ends:
                ends.append(old.wake()[0])

        lease.confirm = confirm_and_wake  # type: ignore[method-assign]
        ownership.publish(checkpoints, writer, "toy-first", RUN, lease, {})
    assert ends == [78]
    assert checkpoints.read_file(checkpoints.verify("toy-first"), "weights") == b"of the new process"


def test_who_publishes_before_it_is_replaced_has_finished_the_run(checkpoints: Checkpoints) -> None:
    """Its successor had the lease already, but had not yet looked at the checkpoint."""
    old = acquire(checkpoints.store)
    with write(checkpoints) as writer:
        reserved = checkpoints.reserve("toy-first", RUN, old.token)
        old.release()
        with acquire(checkpoints.store) as lease:
            manifest = writer.publish({}, reserved)
            assert ownership.take_over(checkpoints, "toy-first", RUN, lease)
            with pytest.raises(AlreadyExists):
                publish(checkpoints, lease)
    assert checkpoints.verify("toy-first") == manifest


def test_taking_over_a_run_that_published_nothing_leaves_no_trace(checkpoints: Checkpoints) -> None:
    with acquire(checkpoints.store) as lease:
        assert not ownership.take_over(checkpoints, "toy-first", RUN, lease)
    assert list(checkpoints.store.list("checkpoints/")) == []


def test_a_reservation_that_is_left_over_keeps_no_other_run_away(checkpoints: Checkpoints) -> None:
    checkpoints.reserve("toy-first", "sessions/toy/runs/gone", 9)
    with acquire(checkpoints.store) as lease:
        assert not ownership.take_over(checkpoints, "toy-first", RUN, lease)
        publish(checkpoints, lease)
    assert ownership.is_published(checkpoints, "toy-first", RUN)


@pytest.mark.parametrize("changes", [{"run": "rival"}, {"session": "", "run": ""}], ids=["a run", "the converter"])
def test_what_another_one_published_is_refused_at_once(checkpoints: Checkpoints, changes: dict[str, str]) -> None:
    with write(checkpoints, **changes) as writer:
        writer.publish()
    with (
        acquire(checkpoints.store) as lease,
        pytest.raises(NotOurs, match=r"already published by .*, not by sessions/"),
    ):
        ownership.take_over(checkpoints, "toy-first", RUN, lease)


def test_a_lease_that_is_lost_ends_with_78(checkpoints: Checkpoints) -> None:
    old = acquire(checkpoints.store)
    record = replace(old._held.record, token=2, nonce="other")
    checkpoints.store.put(f"{RUN}/writer.json", record.encode())
    with write(checkpoints) as writer, pytest.raises(LeaseLost) as caught:
        ownership.publish(checkpoints, writer, "toy-first", RUN, old, {})
    assert exits.code(caught.value) == 78
    old.release()
    assert list(checkpoints.list()) == []


def test_the_program_takes_the_checkpoint_over_before_anything_else(checkpoints: Checkpoints) -> None:
    """It ends for want of a session, and the process before it has lost its reservation."""
    config = checkpoints.store.config
    reserved = checkpoints.reserve("toy-first", RUN, 1)
    environment = {
        **os.environ,
        "DARKROOM_RUN": RUN,
        "DARKROOM_RECIPE": json.dumps(
            {
                "base_model": "micro",
                "base_model_source": "/nowhere",
                "checkpoint": "toy-first",
                "text_encoder": {"steps": 1, "learning_rate": 1e-4},
                "unet": {"steps": 1, "learning_rate": 1e-4},
            }
        ),
        "DARKROOM_S3_ENDPOINT": config.endpoint,
        "DARKROOM_S3_ACCESS_KEY": config.access_key,
        "DARKROOM_S3_SECRET_KEY": config.secret_key,
        "DARKROOM_S3_BUCKET": config.bucket,
    }
    ended = subprocess.run([sys.executable, "-m", "dreambooth"], env=environment, stderr=subprocess.PIPE, text=True)
    assert ended.returncode in (66, 67), ended.stderr
    with write(checkpoints) as writer, pytest.raises(Conflict):
        writer.publish({}, reserved)
    assert list(checkpoints.list()) == []
