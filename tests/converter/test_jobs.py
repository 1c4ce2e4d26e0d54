"""Conversions that are interrupted: cancelled, cut off by a restart, and left alone by their store."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.embedded import EmbeddedStore
from artifacts.errors import AlreadyExists, NotFound
from artifacts.store import ObjectStore
from chassis.metrics import process_registry
from converter.conversions import (
    CANCELLED,
    CANCELLING,
    FAILED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    Conversion,
    ConversionRecords,
)
from converter.errors import ConversionFinished
from converter.job import Job
from converter.jobs import Jobs
from converter.metrics import ConversionMetrics
from darkroom.converter.v1 import converter_pb2 as pb
from google.rpc import error_details_pb2

Files = dict[str, bytes]
Publish = Callable[..., Manifest]


class Gate:
    """Holds a conversion in the middle: `reached` is set when it has come to the gate, `open` lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def pass_through(self, num_tensors: int) -> None:
        if num_tensors == 300:
            self.reached.set()
            assert self.open.wait(300)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Gate]:
    """In the middle of writing, or with the parameter "proving" of reading the result back."""
    gate = Gate()
    wrote, proved_tensor = Job.wrote, Job.proved_tensor

    def gated_write(job: Job, num_bytes: int) -> None:
        gate.pass_through(job.snapshot().num_tensors_done)
        wrote(job, num_bytes)

    def gated_proof(job: Job) -> None:
        gate.pass_through(job.snapshot().num_tensors_proved)
        proved_tensor(job)

    if getattr(request, "param", "writing") == "writing":
        monkeypatch.setattr(Job, "wrote", gated_write)
    else:
        monkeypatch.setattr(Job, "proved_tensor", gated_proof)
    yield gate
    gate.open.set()


@pytest.fixture
def start() -> Iterator[Callable[[ObjectStore], Jobs]]:
    """`start(store)`: running jobs, stopped after the test."""
    started: list[Jobs] = []

    def make(store: ObjectStore) -> Jobs:
        jobs = Jobs(Checkpoints(store), ConversionMetrics(process_registry()))
        jobs.start()
        started.append(jobs)
        return jobs

    yield make
    for jobs in started:
        jobs.stop()


def wait(jobs: Jobs, conversion_id: str, condition: Callable[[Conversion], bool]) -> Conversion:
    """The conversion once the condition holds, woken by its changes."""
    changed = threading.Event()
    end = jobs.listen(changed.set)
    try:
        while not condition(state := jobs.get(conversion_id)):
            assert changed.wait(60), state
            changed.clear()
    finally:
        end()
    return state


def is_final(conversion: Conversion) -> bool:
    return conversion.is_final


def test_a_running_conversion_is_cancelled(
    start: Any, gate: Gate, publish: Publish, micro_files: Files, store: ObjectStore
) -> None:
    publish("toy", micro_files)
    jobs = start(store)
    jobs.create("toy", "ckpt", "", "", "")
    assert gate.reached.wait(60)
    assert jobs.get("toy.ckpt").state == RUNNING
    assert jobs.cancel("toy.ckpt").state == CANCELLING
    assert jobs.cancel("toy.ckpt").state == CANCELLING
    gate.open.set()
    ended = wait(jobs, "toy.ckpt", is_final)
    assert ended.state == CANCELLED
    assert 0 < ended.num_tensors_done < ended.num_tensors
    assert list(store.list("checkpoints/toy.ckpt/")) == []
    with pytest.raises(ConversionFinished):
        jobs.cancel("toy.ckpt")


def test_a_waiting_conversion_is_cancelled_at_once(
    start: Any, gate: Gate, publish: Publish, micro_files: Files, store: ObjectStore
) -> None:
    publish("toy", micro_files)
    jobs = start(store)
    jobs.create("toy", "ckpt", "", "first", "")
    assert gate.reached.wait(60)
    assert jobs.create("toy", "ckpt", "", "second", "").state == PENDING
    assert jobs.cancel("second").state == CANCELLED
    gate.open.set()
    assert wait(jobs, "first", is_final).state == SUCCEEDED
    assert jobs.get("second").state == CANCELLED
    with pytest.raises(NotFound):
        Checkpoints(store).get("second")


def test_a_cancelled_conversion_can_be_asked_for_again(
    start: Any, gate: Gate, publish: Publish, micro_files: Files, store: ObjectStore
) -> None:
    publish("toy", micro_files)
    jobs = start(store)
    jobs.create("toy", "ckpt", "", "", "")
    assert gate.reached.wait(60)
    jobs.cancel("toy.ckpt")
    gate.open.set()
    wait(jobs, "toy.ckpt", is_final)
    assert jobs.create("toy", "ckpt", "", "", "").state in (PENDING, RUNNING)
    assert wait(jobs, "toy.ckpt", is_final).state == SUCCEEDED


def test_a_restarted_service_takes_up_what_was_cut_off(
    start: Any, gate: Gate, publish: Publish, micro_files: Files, store: ObjectStore
) -> None:
    publish("toy", micro_files)
    first = start(store)
    first.create("toy", "ckpt", "", "running", "")
    assert gate.reached.wait(60)
    first.create("toy", "safetensors", "", "waiting", "")
    stopping = threading.Thread(target=first.stop)
    stopping.start()
    assert first._stopping.wait(60)
    gate.open.set()
    stopping.join()
    records = ConversionRecords(store)
    assert records.get("running").conversion.state == RUNNING
    assert records.get("waiting").conversion.state == PENDING
    assert list(store.list("checkpoints/running/")) == []
    second = start(store)
    assert wait(second, "running", is_final).state == SUCCEEDED
    assert wait(second, "waiting", is_final).state == SUCCEEDED
    Checkpoints(store).verify("running")


def left_behind(store: ObjectStore, state: str) -> Conversion:
    """A record as a service that was killed leaves it."""
    conversion = Conversion("toy.ckpt", state, "toy", "ckpt", "", "", datetime.now(UTC))
    ConversionRecords(store).create(conversion)
    return conversion


def test_a_service_killed_after_publishing_is_seen_to_have_succeeded(
    start: Any, publish: Publish, micro_files: Files, store: ObjectStore
) -> None:
    publish("toy", micro_files)
    jobs = start(store)
    jobs.create("toy", "ckpt", "", "", "")
    done = wait(jobs, "toy.ckpt", is_final)
    jobs.stop()
    store.delete("conversions/toy.ckpt.json")
    left_behind(store, RUNNING)
    again = wait(start(store), "toy.ckpt", is_final)
    assert again.state == SUCCEEDED
    assert again.tensors_sha256 == done.tensors_sha256


def test_a_foreign_checkpoint_of_that_id_is_not_taken_for_ours(
    start: Any, publish: Publish, micro_files: Files, store: ObjectStore
) -> None:
    publish("toy", micro_files)
    publish("toy.ckpt", micro_files)
    left_behind(store, RUNNING)
    failed = wait(start(store), "toy.ckpt", is_final)
    assert failed.state == FAILED
    assert "already exists" in failed.error


def test_a_service_killed_while_cancelling_ends_the_cancelling(
    start: Any, publish: Publish, micro_files: Files, store: ObjectStore
) -> None:
    publish("toy", micro_files)
    left_behind(store, CANCELLING)
    assert wait(start(store), "toy.ckpt", is_final).state == CANCELLED
    with pytest.raises(NotFound):
        Checkpoints(store).get("toy.ckpt")


def test_a_source_deleted_meanwhile_fails_with_its_name(start: Any, store: ObjectStore) -> None:
    left_behind(store, PENDING)
    failed = wait(start(store), "toy.ckpt", is_final)
    assert failed.state == FAILED
    assert "'toy' does not exist" in failed.error


def test_two_at_once_ask_for_one_conversion(
    start: Any, publish: Publish, micro_files: Files, store: ObjectStore
) -> None:
    publish("toy", micro_files)
    jobs = start(store)
    answers: list[Conversion] = []
    threads = [
        threading.Thread(target=lambda: answers.append(jobs.create("toy", "ckpt", "", "", ""))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.create_time for answer in answers}) == 1
    assert wait(jobs, "toy.ckpt", is_final).state == SUCCEEDED


def test_an_end_written_by_another_service_is_taken_over(
    start: Any, gate: Gate, publish: Publish, micro_files: Files, store: ObjectStore
) -> None:
    publish("toy", micro_files)
    jobs = start(store)
    jobs.create("toy", "ckpt", "", "", "")
    assert gate.reached.wait(60)
    records = ConversionRecords(store)
    version = records.get("toy.ckpt")
    records.replace(version, version.conversion.ended(FAILED, "as the other one says"))
    gate.open.set()
    assert wait(jobs, "toy.ckpt", is_final).error == "as the other one says"
    assert records.get("toy.ckpt").conversion.state == FAILED


def test_a_record_that_is_deleted_or_damaged_stops_no_other_conversion(
    start: Any, gate: Gate, publish: Publish, micro_files: Files, store: ObjectStore
) -> None:
    publish("toy", micro_files)
    store.put("conversions/damaged.json", b"{")
    jobs = start(store)
    jobs.create("toy", "ckpt", "", "first", "")
    assert gate.reached.wait(60)
    jobs.create("toy", "ckpt", "", "second", "")
    store.delete("conversions/first.json")
    gate.open.set()
    assert wait(jobs, "second", is_final).state == SUCCEEDED
    assert [conversion.id for conversion in jobs.list()] == ["second"]


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """A server that this test alone may stop."""
    server = EmbeddedStore(tmp_path / "store")
    yield server
    server.stop(kill=True)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of conversions, once for each time that one began to write."""
    begun: list[str] = []
    start_counting = Job.start_counting

    def counted(job: Job, num_tensors: int, num_bytes: int) -> None:
        if num_tensors:
            begun.append(job.conversion.id)
        start_counting(job, num_tensors, num_bytes)

    monkeypatch.setattr(Job, "start_counting", counted)
    return begun


@pytest.mark.parametrize(
    ("gate", "retries"),
    [("writing", 0), ("proving", 0), ("writing", 60)],
    indirect=["gate"],
    ids=["long outage while writing", "long outage while proving", "outage shorter than the retries"],
)
async def test_a_conversion_goes_on_when_its_store_is_back(
    retries: int,
    own_store: EmbeddedStore,
    gate: Gate,
    attempts: list[str],
    serve: Any,
    ended: Any,
    failure: Any,
    sizes: Callable[..., Any],
    folder_files: Callable[..., Files],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store is killed in the middle of an upload in parts. A second conversion waits behind the first."""
    monkeypatch.setattr("artifacts.writer.PART_SIZE_BYTES", 5 * 1024**2)  # the smallest that S3 allows
    shapes = sizes(unet=(32, 64, 96, 128)).shapes  # 17 MB, of which the gate lets 7 MB pass
    arrays = {part: {name: np.ones(shape, np.float16) for name, shape in each.items()} for part, each in shapes.items()}
    config = replace(await asyncio.to_thread(own_store.start), retries=retries)
    store = ObjectStore(config)
    checkpoints = Checkpoints(store)
    fields = {"architecture": "sd15", "kind": "base", "precision": "fp16", "prediction_type": "epsilon"}
    with checkpoints.begin("toy", format="diffusers", resolution=64, base_model="", **fields) as writer:
        for path, data in folder_files(arrays).items():
            writer.add_bytes(path, data)
        writer.publish()
    async with serve(config) as stub:
        first = await stub.CreateConversion(pb.CreateConversionRequest(source="checkpoints/toy", format=pb.FORMAT_CKPT))
        second = await stub.CreateConversion(
            pb.CreateConversionRequest(source="checkpoints/toy", format=pb.FORMAT_SAFETENSORS)
        )
        watching = [asyncio.ensure_future(ended(stub, conversion)) for conversion in (first, second)]
        assert await asyncio.to_thread(gate.reached.wait, 300)
        await asyncio.to_thread(own_store.stop, True)
        gate.open.set()
        if not retries:
            error = await failure(stub.CreateConversion(pb.CreateConversionRequest(source="checkpoints/x", format=2)))
            assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
            assert error.detail(error_details_pb2.RetryInfo).retry_delay.seconds > 0
        waiting = await stub.GetConversion(pb.GetConversionRequest(name=first.name))
        assert waiting.state == pb.CONVERSION_STATE_RUNNING
        await asyncio.to_thread(own_store.start)
        done = await asyncio.gather(*watching)
    assert [conversion.error for conversion in done] == ["", ""]
    assert [conversion.state for conversion in done] == [pb.CONVERSION_STATE_SUCCEEDED] * 2
    assert len({conversion.tensors_sha256 for conversion in done}) == 1
    assert (attempts.count("toy.ckpt") > 1) == (retries == 0)
    for checkpoint_id in ("toy", "toy.ckpt", "toy.safetensors"):
        manifest = checkpoints.verify(checkpoint_id)
        names = {stat.key.split("/")[2] for stat in store.list(f"checkpoints/{checkpoint_id}/")}
        assert names == {manifest.writer, "manifest.json"}


def test_an_identical_conversion_that_exists_is_not_an_error_for_the_store(store: ObjectStore) -> None:
    conversion = left_behind(store, PENDING)
    with pytest.raises(AlreadyExists):
        ConversionRecords(store).create(conversion)
    assert ConversionRecords(store).get("toy.ckpt").conversion == conversion
