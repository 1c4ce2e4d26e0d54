"""What the tests of session archives share: contents of a session, and export and import as a client does them."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime

import grpc
import pytest
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import session_pb2 as pb
from grpc import StatusCode
from jobs.execution import Execution
from jobs.recipe import Recipe, StageSettings
from jobs.render import render
from jobs.run_spec import RunSpec
from trainer.archive_index import NAME, Entry, Index, decode
from trainer.runs import Runs

from tests.conftest import TRAINED
from tests.trainer.conftest import Client, reason, upload

FACTS = TRAINED | {"resolution": 64}
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
