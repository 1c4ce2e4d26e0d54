"""The Job that `kubectl apply` makes of a file in examples/jobs is the Job that the service makes of the same order by gRPC."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import training_pb2 as pb
from google.protobuf.json_format import ParseDict
from jobs.manifest import environment_of
from jobs.names import job_name
from trainer.config import TrainerConfig

from tests.cluster.control_plane.kubelet import Kubelet
from tests.cluster.control_plane.plane import Plane
from tests.cluster.control_plane.trainers import job
from tests.trainer.conftest import filled, serving, watched

EXAMPLES = Path(__file__).parents[3] / "examples"
NAMES = sorted(path.stem for path in (EXAMPLES / "runs").iterdir())
# What tells one request, one maker or one way of making it from another.
IDENTITY = {
    *(f"darkroom.dev/{name}" for name in ("create-time", "request-id", "request-digest", "owner", "manifest-digest")),
    "kubectl.kubernetes.io/last-applied-configuration",
}
CONTROLLER = ("batch.kubernetes.io/controller-uid", "controller-uid")


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """What somebody chose of a Job: labels, annotations and spec, without what the API server writes into each."""
    spec = copy.deepcopy(found["spec"])
    for labels in (spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
        for name in CONTROLLER:
            labels.pop(name, None)
    about = found["metadata"]
    annotations = {name: value for name, value in about.get("annotations", {}).items() if name not in IDENTITY}
    return {"name": about["name"], "labels": about["labels"], "annotations": annotations, "spec": spec}


def as_applied(plane: Plane, namespace: str, file: Path) -> dict[str, Any]:
    """The Job that the API server would make of a file."""
    server = ("--dry-run=server", "--output=json", "--namespace", namespace, "--filename", str(file))
    answer = json.loads(plane.kubectl("apply", *server))
    (found,) = (item for item in answer.get("items", [answer]) if item["kind"] == "Job")
    return dict(found)


def by_words(recipe: dict[str, Any]) -> dict[str, Any]:
    """A run file's recipe as JSON of the proto, which knows enums by their whole names only."""
    return recipe | {name: f"{name.upper()}_{recipe[name].upper()}" for name in ("precision",) if name in recipe}


def request_of(file: dict[str, Any], session: str) -> pb.CreateRunRequest:
    """The order of a run file."""
    spec = file["spec"]
    recipe = by_words(spec.get("recipe", {})) | {"baseModel": spec["baseModel"]}
    if preset := spec.get("preset"):
        recipe["preset"] = f"RECIPE_PRESET_{preset.upper()}"
    return pb.CreateRunRequest(
        parent=session,
        run_id=file["metadata"]["name"],
        recipe=ParseDict(recipe, pb.Recipe()),
    )


def put_base_models(store: ObjectStore, tiny: Path) -> None:
    """Both base models of the examples, as the service knows them: by files. "sd15" has the tiny weights and says 512 px."""
    for path in filter(Path.is_file, tiny.rglob("*")):
        name, data = path.relative_to(tiny), path.read_bytes()
        store.put(f"models/sd15-tiny/{name}", data)
        if str(name) == "unet/config.json":
            data = json.dumps(json.loads(data) | {"sample_size": 64}).encode()
        store.put(f"models/sd15/{name}", data)


@pytest.mark.parametrize("name", NAMES)
async def test_the_same_order_by_grpc_is_the_same_job(
    config: TrainerConfig,
    photo: bytes,
    plane: Plane,
    namespace: str,
    kubelet: Kubelet,
    store: ObjectStore,
    tiny_models: Path,
    name: str,
) -> None:
    file = yaml.safe_load((EXAMPLES / "runs" / f"{name}.yaml").read_text())
    applied = as_applied(plane, namespace, EXAMPLES / "jobs" / f"{name}.yaml")
    put_base_models(store, tiny_models / "sd15-tiny")
    Path(config.execution).write_text(yaml.safe_dump(file["spec"]["execution"] | {"namespace": namespace}))
    async with serving(replace(config, models="")) as client:
        session = await filled(client, photo, file["spec"]["session"])
        run = await client.training.CreateRun(request_of(file, session))
        made = job(plane, namespace, run.name)
        # Its pods would hold the node's GPUs for ever.
        await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
        await watched(client, run.name)
    assert job_name(run.name) == applied["metadata"]["name"]
    # The service chooses the name of the checkpoint; a file may.
    wanted = json.loads(environment_of(applied)["DARKROOM_RECIPE"])["checkpoint"]
    chosen = run.checkpoint.removeprefix("checkpoints/")
    assert comparable(made) == json.loads(json.dumps(comparable(applied)).replace(wanted, chosen))
