"""Run files: from YAML to a run and its execution; mistakes with their lines; bytes that depend on nothing else."""

from dataclasses import replace
from typing import Any

import pytest
import yaml
from jobs.errors import FileInvalid
from jobs.execution import Execution, StoreAddress, StoreSecret
from jobs.names import job_name
from jobs.presets import PRESETS
from jobs.recipe import Recipe, StageSettings
from jobs.render import render_all
from jobs.run_file import comment_of, read_run
from jobs.run_spec import UNDATED, RunSpec

LEAST = """\
apiVersion: darkroom.dev/v1
kind: TrainingRun
spec:
  session: robot
  baseModel: sd15-tiny
  recipe:
    resolutionPx: 64
  execution:
    image: registry.test/darkroom-dreambooth:1
    store: {endpoint: "http://store:9000"}
    storeSecret: {name: store-keys}
"""


def changed(change: dict[str, Any]) -> str:
    """The least run file with some fields of its spec or, by "metadata", of all of it set; None takes one away."""
    file = yaml.safe_load(LEAST)
    if "metadata" in change:
        file["metadata"] = change.pop("metadata")
    for path, value in change.items():
        *parents, last = path.split(".")
        place = file["spec"]
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return str(yaml.safe_dump(file, sort_keys=False))


def problems(text: str) -> list[str]:
    with pytest.raises(FileInvalid) as caught:
        read_run(text, "run.yaml")
    return [problem.removeprefix("run.yaml:") for problem in caught.value.problems]


def test_the_least_file() -> None:
    spec, execution = read_run(LEAST, "run.yaml")
    assert execution == Execution(
        image="registry.test/darkroom-dreambooth:1",
        store=StoreAddress("http://store:9000"),
        store_secret=StoreSecret("store-keys"),
    )
    assert spec == RunSpec(
        session="robot",
        run_id=spec.run_id,
        recipe=Recipe("sd15-tiny", resolution_px=64),
        base_model_source="models/sd15-tiny",
        checkpoint=spec.checkpoint,
        create_time=UNDATED,
    )
    assert spec.checkpoint.startswith(f"robot-{spec.run_id}-")


def test_everything_that_a_file_can_say() -> None:
    text = changed(
        {
            "metadata": {"name": "first", "namespace": "training"},
            "runId": "first",
            "checkpoint": "my-robot.1",
            "preset": "object",
            "recipe.baseModel": "sd15-tiny",
            "recipe.unet": {"steps": 4, "learningRate": 1e-4},
            "execution.nodes": 2,
        }
    )
    spec, execution = read_run(text, "run.yaml")
    assert (spec.name, spec.checkpoint) == ("sessions/robot/runs/first", "my-robot.1")
    expected = replace(Recipe(), **PRESETS["object"])
    assert spec.recipe == replace(expected, base_model="sd15-tiny", resolution_px=64, unet=StageSettings(4, 1e-4))
    assert (execution.namespace, execution.nodes) == ("training", 2)


def test_the_same_content_is_the_same_run_and_any_other_another() -> None:
    first = read_run(LEAST, "run.yaml")
    assert read_run("# a comment\n" + LEAST.replace("session: robot", "session: 'robot'"), "other.yaml") == first
    assert render_all(*read_run(LEAST, "run.yaml")) == render_all(*first)
    others = [
        changed({"session": "toy"}),
        changed({"recipe.seed": 1}),
        changed({"baseModel": "sd21"}),
        changed({"execution.resources": {"memory": "32Gi"}}),
        changed({"metadata": {"namespace": "training"}}),
        changed({"checkpoint": "mine"}),
    ]
    ids = {read_run(text, "run.yaml")[0].run_id for text in (LEAST, *others)}
    assert len(ids) == 1 + len(others)


def test_the_name_of_the_job_is_that_of_the_service() -> None:
    spec, execution = read_run(changed({"runId": "first"}), "run.yaml")
    (job,) = render_all(spec, execution)
    assert job["metadata"]["name"] == job_name("sessions/robot/runs/first")
    assert "darkroom.dev/create-time" not in job["metadata"]["annotations"]


def test_a_file_without_anything_names_all_it_needs() -> None:
    assert [problem.split()[1] for problem in problems("{}")] == [
        "apiVersion",
        "kind",
        "spec.baseModel",
        "spec.execution.image",
        "spec.execution.store.endpoint",
        "spec.execution.storeSecret.name",
        "spec.recipe.resolutionPx",
        "spec.session",
    ]
    assert problems("- 1") == ["1: the file is one list: expected fields and their values"]


def test_mistakes_of_all_parts_are_named_at_once_with_their_lines() -> None:
    text = """\
apiVersion: darkroom.dev/v2
kind: Job
metadata: {name: First_}
spec:
  session: Robot
  preset: fase
  baseModel: ../secrets
  recipe:
    resolutionPx: 100
    sed: 7
    text_encoder:
      learningRate: 5
  execution:
    image: x
    store: {endpoint: "s:1"}
    storeSecret: {name: k}
    gpus: 1
"""
    assert problems(text) == [
        "1: apiVersion is 'darkroom.dev/v2': expected darkroom.dev/v1",
        "2: kind is 'Job': expected TrainingRun",
        "3: metadata.name is 'First_': expected 1 to 40 lower-case letters, digits and hyphens, "
        "starting with a letter or digit",
        "5: spec.session is 'Robot': expected 1 to 63 lower-case letters, digits and hyphens, "
        "starting with a letter or digit",
        "6: spec.preset is 'fase': expected one of face, object, style, did you mean face?",
        "7: spec.baseModel is '../secrets': expected the name of a folder below \"models/\" in the bucket",
        "9: spec.recipe.resolutionPx is 100: expected a multiple of 8 from 64 to 2048",
        "10: spec.recipe.sed is unknown, did you mean seed?",
        "12: spec.recipe.text_encoder.learningRate is 5: expected a number above 0 to 0.1",
        "17: spec.execution.gpus is unknown, did you mean gpu?",
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"metadata": {"name": "a"}, "runId": "b"}, "spec.runId is 'b', but metadata.name is 'a'"),
        (
            {"metadata": {"namespace": "a"}, "execution.namespace": "b"},
            "metadata.namespace is 'a', but spec.execution.namespace is 'b'",
        ),
        ({"recipe.baseModel": "sd21"}, "spec.recipe.baseModel is 'sd21', but spec.baseModel is 'sd15-tiny'"),
        ({"preset": "face", "recipe.preset": "style"}, "spec.recipe.preset is 'style', but spec.preset is 'face'"),
        ({"recipe.requireCaptions": True}, "spec.recipe.requireCaptions needs use_captions"),
        (
            {"recipe.unet": {"steps": 5, "learningRate": 1e-3, "warmupSteps": 5}},
            "spec.recipe.unet.warmupSteps is 5, expected fewer than the stage's 5 steps",
        ),
        ({"recipe.textEncoder": {"steps": 0}, "recipe.unet": {"steps": 0}}, "spec.recipe has no steps"),
        (
            {
                "recipe.referenceOrder": True,
                "recipe.stages": "joint_then_freeze",
                "recipe.unet": {"steps": 0},
                "execution.nodes": 2,
            },
            "spec.recipe.referenceOrder draws for one process, and runs here have 2",
        ),
        ({"recipe.resolutionPx": None}, "spec.recipe.resolutionPx is missing"),
        ({"baseModel": None}, "spec.baseModel is missing"),
        ({"checkpoint": "a/b"}, "spec.checkpoint is 'a/b': expected 1 to 128"),
        ({"execution": None}, "spec.execution.image is missing"),
        ({"recipes": {}}, "spec.recipes is unknown, did you mean recipe?"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(change: dict[str, Any], problem: str) -> None:
    assert problem in "\n".join(problems(changed(change)))


def test_the_comment_at_the_top() -> None:
    assert comment_of("# one  \n#two\n\n# three\na: 1\n") == "# one\n#two\n"
    assert comment_of("a: 1\n") == ""


def test_a_field_that_is_new_gives_no_file_another_run_unless_it_says_something() -> None:
    def run_id(**execution: Any) -> str:
        return read_run(changed({f"execution.{name}": value for name, value in execution.items()}), "run.yaml")[
            0
        ].run_id

    assert run_id() == "r-03de1890dd22"  # as the first release made it
    assert run_id(runAsUser=10001, hostUsers=True, device="auto") == run_id()
    assert len({run_id(), run_id(runAsUser=20001), run_id(hostUsers=False), run_id(device="cpu")}) == 4
