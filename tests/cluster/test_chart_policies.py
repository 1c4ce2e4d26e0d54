"""The policies that the chart renders, on MinIO: what each service's user may and may not do, with our own store code."""

from collections.abc import Callable, Iterator, Mapping

import pytest
from artifacts import lifecycle
from artifacts.errors import AccessDenied, StoreRejected
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore

from tests.cluster import chart_users
from tests.cluster.harness.client import Cluster

Stores = Mapping[str, ObjectStore]
BUCKET = "chart-policies"
SESSION, IMAGE, RUN = "sessions/cat", "sessions/cat/instance_images/1.png", "sessions/cat/runs/r"
CHECKPOINT = "checkpoints/c"
BIG = b"0" * (12 * 1024 * 1024)
"""More than one part of an upload."""


@pytest.fixture(scope="module")
def stores(cluster: Cluster) -> Iterator[Stores]:
    """The bucket, not made yet, as each service sees it."""
    chart_users.remove_bucket(cluster, BUCKET)
    with chart_users.restricted_users(cluster, BUCKET) as users:
        found = {name: chart_users.store_as(cluster, BUCKET, user) for name, user in users.items()}
        found["owner"] = chart_users.store_as(cluster, BUCKET)
        yield found


@pytest.fixture(scope="module")
def filled(stores: Stores) -> Stores:
    """The same with a bucket, a session, a model and a checkpoint in it."""
    stores["bucket-setup"].ensure_bucket()
    owner = stores["owner"]
    sessions = Sessions(owner)
    sessions.create("cat")
    sessions.put_image("cat", "1.png", b"x")
    for key in (f"{RUN}/status.json", "models/a/model_index.json", f"{CHECKPOINT}/manifest.json", "conversions/x.json"):
        owner.put(key, b"{}")
    owner.put("imports/i/state.json", b"{}")
    return stores


def test_only_the_set_up_makes_the_bucket(stores: Stores) -> None:
    for name in ("trainer", "converter", "captioner", "dreambooth", "webui-engine", "webui-gateway"):
        with pytest.raises(AccessDenied):
            stores[name].ensure_bucket()
    stores["bucket-setup"].ensure_bucket()
    stores["bucket-setup"].ensure_bucket()
    # MinIO does not know the rule, and says so only to who may set it; it removes such uploads by itself.
    with pytest.raises(lifecycle.LifecycleUnsupported):
        lifecycle.abort_incomplete_uploads(stores["bucket-setup"].config, 1)
    with pytest.raises(AccessDenied):
        lifecycle.abort_incomplete_uploads(stores["trainer"].config, 1)
    for name in ("trainer", "converter"):  # they look for it when they start
        stores[name].ensure_bucket()


Deed = Callable[[ObjectStore], object]


def reads(key: str) -> Deed:
    return lambda store: store.get(key)


def lists(prefix: str) -> Deed:
    return lambda store: list(store.list(prefix))


def folders(prefix: str) -> Deed:
    return lambda store: list(store.list_folders(prefix))


def writes(key: str) -> Deed:
    return lambda store: store.put(key, b"{}")


def claims(key: str) -> Deed:
    """Creates, and replaces what it created."""

    def claim(store: ObjectStore) -> None:
        store.put_if_absent(key, b"{}")
        store.replace(key, b'{"a": 1}', store.stat(key).etag)

    return claim


def uploads(key: str) -> Deed:
    """In parts."""

    def upload(store: ObjectStore) -> None:
        with store.writer(key) as target:
            target.write(BIG)

    return upload


def removes(key: str) -> Deed:
    """What somebody wrote there before."""
    return lambda store: store.delete_many([key])


ALLOWED = [
    ("captioner", lists(f"{SESSION}/instance_images/"), "lists images"),
    ("captioner", reads(IMAGE), "reads an image"),
    ("captioner", lambda store: Sessions(store).set_caption("cat", "1.png", "a cat"), "writes a caption"),
    ("trainer", lambda store: Sessions(store).create("dog"), "creates a session"),
    ("trainer", lambda store: Sessions(store).put_image("dog", "1.png", b"x"), "puts an image"),
    ("trainer", folders("sessions/"), "lists sessions"),
    ("trainer", folders("models/"), "lists base models"),
    ("trainer", reads(f"{RUN}/status.json"), "reads a run"),
    ("trainer", claims("sessions/dog/runs/q/run.json"), "creates and replaces a run"),
    ("trainer", uploads("checkpoints/imported/weights/a.safetensors"), "uploads an imported checkpoint"),
    ("trainer", removes("checkpoints/imported/weights/a.safetensors"), "removes it"),
    ("trainer", uploads("imports/j/archive"), "uploads an import"),
    ("trainer", removes("imports/i/state.json"), "removes an import"),
    ("trainer", removes("sessions/dog/session.json"), "removes a session"),
    ("dreambooth", reads(IMAGE), "reads an image"),
    ("dreambooth", reads("models/a/model_index.json"), "reads a base model"),
    ("dreambooth", claims(f"{RUN}/writer.json"), "takes and renews its lease"),
    ("dreambooth", uploads(f"{RUN}/resume_points/1/state.safetensors"), "uploads a resume point"),
    ("dreambooth", lambda store: store.delete_prefix(f"{RUN}/resume_points/"), "removes resume points"),
    ("dreambooth", writes(f"{RUN}/events/01-00000001.jsonl"), "writes what happens"),
    ("dreambooth", writes(f"{RUN}/samples/unet-000010-0.png"), "writes a sample"),
    ("dreambooth", writes(f"{RUN}/tensorboard/samples/events.1"), "writes curves"),
    ("dreambooth", removes(f"{RUN}/tensorboard/samples/events.1"), "removes curves"),
    ("dreambooth", writes(f"{SESSION}/class_images/1.png"), "writes a class image"),
    ("dreambooth", uploads("checkpoints/d/unet/model.safetensors"), "uploads a checkpoint"),
    ("dreambooth", lambda store: store.put_if_absent("checkpoints/d/manifest.json", b"{}"), "publishes it"),
    ("dreambooth", removes("checkpoints/d/unet/model.safetensors"), "removes half a checkpoint"),
    ("converter", folders(CHECKPOINT.partition("/")[0] + "/"), "lists checkpoints"),
    ("converter", reads(f"{CHECKPOINT}/manifest.json"), "reads a checkpoint"),
    ("converter", reads("models/a/model_index.json"), "reads a model"),
    ("converter", claims("conversions/y.json"), "creates and replaces its record"),
    ("converter", uploads("checkpoints/e/model.safetensors"), "uploads what it converted"),
    ("converter", removes("checkpoints/e/model.safetensors"), "removes half of it"),
    ("webui-gateway", folders("checkpoints/"), "lists checkpoints"),
    ("webui-gateway", reads(f"{CHECKPOINT}/manifest.json"), "reads a checkpoint"),
    ("webui-engine", folders("checkpoints/"), "lists checkpoints"),
    ("webui-engine", reads(f"{CHECKPOINT}/manifest.json"), "reads a checkpoint"),
    ("bucket-setup", uploads("models/b/unet.safetensors"), "uploads a model"),
    ("bucket-setup", writes("controlnets/b/config.json"), "uploads a ControlNet"),
    ("bucket-setup", lists("models/"), "lists models"),
]

DENIED = [
    ("captioner", writes("sessions/cat/instance_images/2.png"), "writes an image"),
    ("captioner", writes("sessions/cat/session.json"), "changes a session"),
    ("captioner", removes(IMAGE), "removes an image"),
    ("captioner", lists("checkpoints/"), "lists checkpoints"),
    ("captioner", reads(f"{CHECKPOINT}/manifest.json"), "reads a checkpoint"),
    ("captioner", lists(""), "lists the whole bucket"),
    ("trainer", writes("models/a/model_index.json"), "changes a base model"),
    ("trainer", lists("conversions/"), "lists conversions"),
    ("trainer", reads("conversions/x.json"), "reads a conversion"),
    ("dreambooth", writes("sessions/cat/session.json"), "changes a session"),
    ("dreambooth", writes(f"{RUN}/job.json"), "changes the order of a run"),
    ("dreambooth", writes(f"{RUN}/status.json"), "changes the state of a run"),
    ("dreambooth", writes("sessions/cat/runs/active.json"), "takes the session for another run"),
    ("dreambooth", removes(f"{RUN}/status.json"), "removes the state of a run"),
    ("dreambooth", writes(IMAGE), "changes an image"),
    ("dreambooth", removes(IMAGE), "removes an image"),
    ("dreambooth", writes("models/a/model_index.json"), "changes a base model"),
    ("dreambooth", reads("conversions/x.json"), "reads a conversion"),
    ("dreambooth", reads("imports/i/state.json"), "reads an import"),
    ("converter", reads(f"{SESSION}/session.json"), "reads a session"),
    ("converter", lists("sessions/"), "lists sessions"),
    ("converter", writes("models/a/model_index.json"), "changes a base model"),
    ("converter", removes("conversions/x.json"), "removes a record"),
    *(
        (name, deed, does)
        for name in ("webui-gateway", "webui-engine")
        for deed, does in (
            (writes("checkpoints/c/more"), "changes a checkpoint"),
            (removes(f"{CHECKPOINT}/manifest.json"), "removes a checkpoint"),
            (reads(IMAGE), "reads an image"),
            (lists("sessions/"), "lists sessions"),
            (reads("models/a/model_index.json"), "reads a base model"),
        )
    ),
    ("bucket-setup", writes("sessions/cat/more"), "writes into a session"),
    ("bucket-setup", reads(IMAGE), "reads an image"),
    ("bucket-setup", removes("models/a/model_index.json"), "removes a model"),
]


@pytest.mark.parametrize(("service", "deed", "does"), ALLOWED, ids=[f"{name} {does}" for name, _, does in ALLOWED])
def test_allowed(filled: Stores, service: str, deed: Deed, does: str) -> None:
    deed(filled[service])


@pytest.mark.parametrize(("service", "deed", "does"), DENIED, ids=[f"{name} {does}" for name, _, does in DENIED])
def test_denied(filled: Stores, service: str, deed: Deed, does: str) -> None:
    # A removal is one entry in a list of many, and so is its refusal.
    with pytest.raises((AccessDenied, StoreRejected), match=r"refused access|AccessDenied"):
        deed(filled[service])


def test_every_policy_has_rows(stores: Stores) -> None:
    services = set(stores) - {"owner"}
    assert {name for name, *_ in ALLOWED} == {name for name, *_ in DENIED} == services
