"""The Job that the service makes is the Job that a run file gives, but for what identifies the request."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import training_pb2 as pb
from google.protobuf.json_format import ParseDict
from jobs.execution import Execution
from jobs.execution_file import read_execution
from jobs.render import render_all
from jobs.run_file import read_run
from jobs.run_spec import RunSpec
from PIL import Image
from trainer.base_models import BaseModels
from trainer.runs import Run
from trainer.server.recipes import to_recipe
from trainer.training import Order, Training

from tests.jobs.test_execution_file import EVERYTHING, LEAST
from tests.trainer.conftest import encoded


class Cluster:
    """Takes runs and does nothing with them."""

    owner = ""

    def start(self) -> None:
        """Nothing to wait for."""

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Anything is fine."""

    def submit(self, spec: RunSpec) -> None:
        """Nothing executes it here."""

    cancel = suspend = unsuspend = submit

    def tend(self, run: Run) -> None:
        """Nothing happens to it."""

    def found(self) -> list[RunSpec]:
        return []

    def close(self) -> None:
        """Nothing to stop."""


@pytest.fixture
def robot(store: ObjectStore, tiny_models: Path) -> str:
    """A session with one image, and the base model in the bucket, as it is in a cluster."""
    for path in (tiny_models / "sd15-tiny").rglob("*"):
        if path.is_file():
            store.put(f"models/sd15-tiny/{path.relative_to(tiny_models / 'sd15-tiny')}", path.read_bytes())
    sessions = Sessions(store)
    sessions.create("robot", "sd15-tiny", "")
    store.put("sessions/robot/instance_images/one.png", encoded(Image.new("RGB", (64, 64))))
    return "robot"


RECIPES: list[dict[str, Any]] = [
    {"preset": "RECIPE_PRESET_FACE", "resolutionPx": 64},
    {
        "baseModel": "sd15-tiny",
        "unet": {"steps": 4, "learningRate": 1e-4, "schedule": "LEARNING_RATE_SCHEDULE_COSINE"},
        "lora": {"rank": 4},
        "precision": "PRECISION_BF16",
        "samplePrompts": ["ein Bild für später"],
        "seed": "7",
        "resolutionPx": 64,
    },
]


@pytest.mark.parametrize("execution", [LEAST, EVERYTHING], ids=["least", "everything"])
@pytest.mark.parametrize("recipe", RECIPES, ids=["preset", "settings"])
def test_one_renderer(store: ObjectStore, robot: str, execution: str, recipe: dict[str, Any]) -> None:
    training = Training(store, BaseModels(store, None), Cluster(), read_execution(execution, "execution.yaml"))
    order = Order(robot, to_recipe(ParseDict(recipe, pb.Recipe())), run_id="first", request_id="once")
    run = training.create(order)
    made = training.runs.manifest(run.name)[1]

    file = {
        "apiVersion": "darkroom.dev/v1",
        "kind": "TrainingRun",
        "spec": {
            "session": robot,
            "runId": "first",
            "baseModel": "sd15-tiny",
            "checkpoint": run.spec.checkpoint,
            "recipe": recipe,
            "execution": yaml.safe_load(execution),
        },
    }
    spec, own = read_run(yaml.safe_dump(file, allow_unicode=True), "run.yaml")
    rendered = render_all(spec, own)[-1]

    identity = {f"darkroom.dev/{name}" for name in ("create-time", "request-id", "request-digest")}
    assert identity <= made["metadata"]["annotations"].keys()
    for name in identity:
        del made["metadata"]["annotations"][name]
    assert made == rendered


def test_what_is_left_out_is_the_same_run_in_other_words(store: ObjectStore, robot: str) -> None:
    """Without a resolution the service takes the base model's, which a file has to name."""
    training = Training(store, BaseModels(store, None), Cluster(), Execution())
    run = training.create(Order(robot, to_recipe(pb.Recipe()), run_id="first"))
    spec, _ = read_run(
        yaml.safe_dump(
            {
                "apiVersion": "darkroom.dev/v1",
                "kind": "TrainingRun",
                "metadata": {"name": "first"},
                "spec": {
                    "session": robot,
                    "baseModel": "sd15-tiny",
                    "recipe": {"resolutionPx": run.spec.recipe.resolution_px},
                    "execution": yaml.safe_load(LEAST),
                },
            }
        ),
        "run.yaml",
    )
    assert replace(spec, checkpoint=run.spec.checkpoint, create_time=run.spec.create_time) == run.spec
