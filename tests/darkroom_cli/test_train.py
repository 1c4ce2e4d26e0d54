"""`darkroom train`: from options and a recipe file to the message; `runs resume` and `runs points` with a real trainer."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from darkroom.trainer.v1 import training_pb2 as pb
from darkroom_cli.__main__ import app
from darkroom_cli.commands import recipe_options
from darkroom_cli.output import UsageProblem
from google.protobuf.json_format import MessageToDict

from tests.darkroom_cli.conftest import TrainerForCommands

ROOT = Path(__file__).parents[2]
TRAIN: Any = typer.main.get_command(app).commands["train"]


def recipe(*arguments: str) -> pb.Recipe:
    """What the command would send."""
    return recipe_options.to_recipe(TRAIN.make_context("train", ["toy", *arguments]).params)


def test_what_is_not_given_stays_unset() -> None:
    assert recipe() == pb.Recipe()
    assert recipe("--preset", "style") == pb.Recipe(preset=pb.RECIPE_PRESET_STYLE)


EVERYTHING = {
    "base_model": ("--base-model", "sd15"),
    "text_encoder.steps": ("--text-encoder-steps", 3),
    "text_encoder.learning_rate": ("--text-encoder-rate", 0.5),
    "text_encoder.schedule": ("--text-encoder-schedule", "cosine"),
    "text_encoder.warmup_steps": ("--text-encoder-warmup", 1),
    "text_encoder.resolution_px": ("--text-encoder-resolution", 64),
    "unet.steps": ("--unet-steps", 4),
    "unet.learning_rate": ("--unet-rate", 0.25),
    "unet.schedule": ("--unet-schedule", "polynomial"),
    "unet.warmup_steps": ("--unet-warmup", 2),
    "unet.resolution_px": ("--unet-resolution", 72),
    "resolution_px": ("--resolution", 80),
    "batch_size": ("--batch-size", 2),
    "precision": ("--precision", "bf16"),
    "seed": ("--seed", 7),
    "instance_prompt": ("--prompt", "a photo"),
    "use_captions": ("--captions", True),
    "require_captions": ("--require-captions", True),
    "sample_prompts": ("--sample", "a toy"),
    "sample_every_steps": ("--sample-every", 10),
    "flip": ("--flip", True),
    "preset": ("--preset", "object"),
    "stages": ("--stages", "joint_then_freeze"),
    "lora.rank": ("--lora-rank", 4),
    "lora.alpha": ("--lora-alpha", 8.0),
    "prior_preservation.class_prompt": ("--class-prompt", "a toy"),
    "prior_preservation.num_class_images": ("--class-images", 20),
    "prior_preservation.weight": ("--class-weight", 0.5),
    "caption_dropout": ("--caption-dropout", 0.125),
    "offset_noise": ("--offset-noise", 0.25),
    "min_snr_gamma": ("--min-snr-gamma", 5.0),
    "ema_decay": ("--ema-decay", 0.75),
    "gradient_accumulation_steps": ("--accumulation", 3),
    "gradient_checkpointing": ("--gradient-checkpointing", True),
    "max_gradient_norm": ("--max-gradient-norm", 0.5),
    "optimizer": ("--optimizer", "adamw_8bit"),
    "weight_decay": ("--weight-decay", 0.125),
    "crop": ("--crop", "buckets"),
    "resume_point_every_steps": ("--resume-point-every-steps", 50),
    "resume_point_every_minutes": ("--resume-point-every-minutes", 6),
    "keep_resume_points": ("--keep-resume-points", 3),
    "reference_order": ("--reference-order", True),
}


def fields(descriptor: Any = pb.Recipe.DESCRIPTOR, prefix: str = "") -> set[str]:
    """Every setting of a recipe."""
    return {
        name
        for field in descriptor.fields
        for name in (
            fields(field.message_type, f"{prefix}{field.name}.") if field.message_type else {f"{prefix}{field.name}"}
        )
    }


def test_there_is_an_option_for_every_field() -> None:
    assert set(EVERYTHING) == fields()
    arguments = [
        str(word) for option, value in EVERYTHING.values() for word in ((option,) if value is True else (option, value))
    ]
    found = MessageToDict(recipe(*arguments), preserving_proto_field_name=True)
    for path, (_, expected) in EVERYTHING.items():
        value: Any = found
        for name in path.split("."):
            value = value[name]
        if isinstance(expected, str) and isinstance(value, str) and value.isupper():
            assert value.lower().endswith(expected), path
        else:
            assert value in (expected, [expected], str(expected)), path


def test_zero_is_a_value() -> None:
    found = recipe("--text-encoder-steps", "0", "--weight-decay", "0", "--max-gradient-norm", "0")
    assert (found.HasField("text_encoder"), found.HasField("unet")) == (True, False)
    assert (found.HasField("weight_decay"), found.HasField("max_gradient_norm")) == (True, True)


def test_a_part_of_a_stage_is_enough() -> None:
    assert recipe("--preset", "face", "--unet-steps", "5") == pb.Recipe(
        preset=pb.RECIPE_PRESET_FACE, unet=pb.StageSettings(steps=5)
    )


@pytest.mark.parametrize("field", [field for field, (_, value) in EVERYTHING.items() if value is True])
def test_a_switch_can_be_turned_off(field: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({field: True}))
    option = EVERYTHING[field][0].replace("--", "--no-")
    assert getattr(recipe("--recipe", str(path)), field) is True
    assert getattr(recipe("--recipe", str(path), option), field) is False


class TestRecipeFile:
    """--recipe, with the names of the proto or of its JSON."""

    def test_options_override_it(self, tmp_path: Path) -> None:
        path = tmp_path / "recipe.json"
        path.write_text(
            json.dumps(
                {
                    "textEncoder": {"steps": 3, "learningRate": 1e-6},
                    "unet": {"steps": 5, "learning_rate": 1e-4, "schedule": "LEARNING_RATE_SCHEDULE_COSINE"},
                    "sample_prompts": ["one", "two"],
                    "seed": 7,
                }
            )
        )
        found = recipe("--recipe", str(path), "--unet-rate", "2e-4", "--sample", "three")
        assert (found.text_encoder.steps, found.unet.steps, found.unet.learning_rate) == (3, 5, 2e-4)
        assert found.unet.schedule == pb.LEARNING_RATE_SCHEDULE_COSINE
        assert (list(found.sample_prompts), found.seed) == (["three"], 7)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("{", "is not JSON"),
            ("[]", "found list"),
            ('{"steps": 5}', 'no field named "steps"'),
            ('{"optimizer": "SGD"}', "optimizer"),
        ],
    )
    def test_what_is_wrong_with_it(self, tmp_path: Path, text: str, problem: str) -> None:
        path = tmp_path / "recipe.json"
        path.write_text(text)
        with pytest.raises(UsageProblem, match=problem):
            recipe("--recipe", str(path))

    def test_the_example(self) -> None:
        found = recipe("--recipe", str(ROOT / "examples" / "recipe.json"))
        assert (found.preset, found.lora.rank, found.unet.steps) == (pb.RECIPE_PRESET_OBJECT, 16, 1000)

    def test_that_of_another_run(self, trainer: TrainerForCommands, tmp_path: Path) -> None:
        first = trainer.run(trainer.session(), seed=7, min_snr_gamma=5)
        path = tmp_path / "run.json"
        path.write_text(trainer.darkroom("runs", "show", "toy/first", "--json").stdout)
        done = trainer.darkroom("train", "toy", "--recipe", str(path), "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["recipe"] == MessageToDict(
            first.recipe, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )


def test_defaults_come_from_the_service(trainer: TrainerForCommands) -> None:
    trainer.session()
    done = trainer.darkroom("train", "toy", "--preset", "face", "--sample", "exit 0", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["recipe"]
    assert (found["text_encoder"]["steps"], found["unet"]["steps"]) == (200, 1200)


def test_every_mistake_is_printed(trainer: TrainerForCommands) -> None:
    trainer.session()
    done = trainer.darkroom("train", "toy", "--lora-rank", "0", "--batch-size", "99", "--caption-dropout", "nan")
    assert done.exit_code == 1
    for field in ("recipe.lora.rank", "recipe.batch_size", "recipe.caption_dropout"):
        assert field in done.stderr


def test_a_run_is_resumed_and_its_resume_points_are_listed(trainer: TrainerForCommands) -> None:
    failed = trainer.run(trainer.session(), "steps 2, point 2, inexact")
    assert failed.exit_code == 69
    done = trainer.darkroom("runs", "points", "toy/first")
    assert done.stdout.splitlines()[1].split()[:3] == ["UNet", "2", "0.0"]
    assert [
        point["step"] for point in json.loads(trainer.darkroom("runs", "points", "toy/first", "--json").stdout)
    ] == [2]
    assert trainer.darkroom("runs", "resume", "toy/first").exit_code == 1
    started = trainer.darkroom("runs", "resume", "toy/first", "--accept-inexact", "--detach", "--json")
    assert json.loads(started.stdout)["state"] == "RUN_STATE_RUNNING"
    *_, last = trainer.training.WatchRun(pb.WatchRunRequest(name=failed.name))
    assert (last.run.state, last.run.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 3)
    refused = trainer.darkroom("runs", "resume", "toy/first")
    assert (refused.exit_code, "RUN_FINISHED" in refused.stderr) == (1, True)
