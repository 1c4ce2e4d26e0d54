"""`darkroom runs` against a real trainer: what is shown, compared, drawn and said in a pipe."""

import io
import json
import math
from pathlib import Path

import pytest
from darkroom.trainer.v1 import training_pb2 as pb
from darkroom_cli import run_view
from darkroom_cli.run_words import changed_settings, settings
from PIL import Image
from rich.console import Console

from tests.darkroom_cli.conftest import TrainerForCommands

LOSSES = {"text_encoder": [0.5, 0.4, 0.3], "unet": [0.9, 0.8, 0.7, 0.6]}


@pytest.fixture
def run(trainer: TrainerForCommands) -> pb.Run:
    """A run that is over and has recorded two stages."""
    made = trainer.run(trainer.session())
    trainer.record(made.name, LOSSES)
    return made


class TestShow:
    def test_facts_stages_settings_and_a_picture(self, trainer: TrainerForCommands, run: pb.Run) -> None:
        done = trainer.darkroom("runs", "show", "toy/first")
        assert done.exit_code == 0, done.output
        rows = [line.split() for line in done.stdout.splitlines()]
        assert ["state", "SUCCEEDED"] in rows
        assert ["attempts", "1"] in rows
        assert ["checkpoint", run.checkpoint.removeprefix("checkpoints/")] in rows
        assert ["text", "encoder", "3/3", "0.001", "0.5000", "0.3000", "0.4940", "5.0", "0:00:02"] in rows
        assert ["UNet", "4/4", "0.001", "0.9000", "0.6000", "0.8882", "5.0", "0:00:03"] in rows
        assert ["unet.steps", "5"] in rows
        assert "┴" in done.stdout
        assert "\x1b" not in done.output

    def test_run_is_the_same_command(self, trainer: TrainerForCommands, run: pb.Run) -> None:
        assert (
            trainer.darkroom("run", "show", "toy/first").stdout == trainer.darkroom("runs", "show", "toy/first").stdout
        )

    def test_json_has_every_loss(self, trainer: TrainerForCommands, run: pb.Run) -> None:
        trainer.record(run.name, {"unet": [0.1, 0.2]})
        found = json.loads(trainer.darkroom("runs", "show", "toy/first", "--json").stdout)
        assert (found["name"], found["state"]) == (run.name, "RUN_STATE_SUCCEEDED")
        assert [(stage["stage"], stage["steps"], stage["losses"]) for stage in found["stages"]] == [
            ("STAGE_UNET", [1, 2], [0.1, 0.2])
        ]

    def test_png(self, trainer: TrainerForCommands, run: pb.Run, tmp_path: Path) -> None:
        path = tmp_path / "curve.png"
        done = trainer.darkroom("runs", "show", "toy/first", "--png", str(path))
        assert (done.exit_code, str(path) in done.stderr) == (0, True)
        with Image.open(path) as image:
            assert image.size == (1280, 720)

    def test_a_png_that_cannot_be_written_is_named(
        self, trainer: TrainerForCommands, run: pb.Run, tmp_path: Path
    ) -> None:
        done = trainer.darkroom("runs", "show", "toy/first", "--png", str(tmp_path / "none" / "curve.png"))
        assert done.exit_code == 1
        assert "curve.png: No such file or directory" in done.stderr

    def test_a_failed_run_says_why_and_has_nothing_to_draw(self, trainer: TrainerForCommands, tmp_path: Path) -> None:
        trainer.run(trainer.session(), "exit 64")
        done = trainer.darkroom("runs", "show", "toy/first")
        assert done.exit_code == 0
        assert "no luck with 64" in done.stdout
        assert "exit code   64" in done.stdout
        path = tmp_path / "curve.png"
        assert trainer.darkroom("runs", "show", "toy/first", "--png", str(path)).exit_code == 1
        assert not path.exists()

    def test_a_run_that_goes_on_is_shown_as_it_stands(self, trainer: TrainerForCommands) -> None:
        recipe = pb.Recipe(sample_prompts=["steps 3, hold"], text_encoder=pb.StageSettings(steps=0), unet=_stage(5))
        request = pb.CreateRunRequest(parent=trainer.session(), recipe=recipe, run_id="first")
        name = trainer.training.CreateRun(request).name
        for event in trainer.training.WatchRun(pb.WatchRunRequest(name=name)):
            if event.message.startswith("holding"):
                break
        done = trainer.darkroom("runs", "show", "toy/first")
        assert "UNet   3/5" in done.stdout
        assert ["state", "RUNNING"] in [line.split() for line in done.stdout.splitlines()]

    def test_one_that_does_not_exist(self, trainer: TrainerForCommands) -> None:
        done = trainer.darkroom("runs", "show", "toy/first")
        assert done.exit_code == 1
        assert "sessions/toy/runs/first" in done.stderr


class TestCompare:
    def test_equal_runs(self, trainer: TrainerForCommands, run: pb.Run) -> None:
        trainer.record(trainer.run("sessions/toy", run_id="second").name, LOSSES)
        done = trainer.darkroom("runs", "compare", "toy/first", "toy/second")
        assert done.exit_code == 0
        assert "losses: bit-equal over 7 steps\n" in done.stdout
        assert "⠒⠒ toy/first   ++ toy/second" in done.stdout

    def test_the_first_difference_and_the_settings_that_differ(
        self, trainer: TrainerForCommands, run: pb.Run, tmp_path: Path
    ) -> None:
        other = math.nextafter(0.8, 1)
        trainer.record(
            trainer.run("sessions/toy", run_id="second", seed=7).name, LOSSES | {"unet": [0.9, other, 0.7, 0.6]}
        )
        path = tmp_path / "both.png"
        done = trainer.darkroom("runs", "compare", "toy/first", "toy/second", "--png", str(path))
        assert (
            f"losses: first differ at UNet step 2: 0.8 and {other!r}; bit-equal over the 4 steps before" in done.stdout
        )
        rows = [line.split() for line in done.stdout.splitlines()]
        assert ["seed", "0", "7"] in rows
        assert not [row for row in rows if row[:1] == ["unet.steps"]]
        assert ["UNet:", "last", "loss", "0.600000", "0.600000"] in rows
        assert path.stat().st_size > 1000

    def test_one_goes_on_alone(self, trainer: TrainerForCommands, run: pb.Run) -> None:
        trainer.record(trainer.run("sessions/toy", run_id="second").name, {"text_encoder": LOSSES["text_encoder"]})
        done = trainer.darkroom("runs", "compare", "toy/second", "toy/first")
        assert "losses: bit-equal over 3 steps; toy/first alone goes on at UNet step 1" in done.stdout

    def test_json(self, trainer: TrainerForCommands, run: pb.Run) -> None:
        trainer.record(trainer.run("sessions/toy", run_id="second", seed=7).name, LOSSES | {"unet": [0.25]})
        found = json.loads(trainer.darkroom("runs", "compare", "toy/first", "toy/second", "--json").stdout)
        assert (found["num_equal_steps"], found["settings"]) == (3, {"seed": ["0", "7"]})
        assert found["first_difference"] == {"stage": "STAGE_UNET", "step": 1, "losses": [0.9, 0.25]}

    def test_one_that_does_not_exist(self, trainer: TrainerForCommands, run: pb.Run) -> None:
        done = trainer.darkroom("runs", "compare", "toy/first", "toy/none")
        assert (done.exit_code, "sessions/toy/runs/none" in done.stderr) == (1, True)


class TestWatch:
    def test_a_pipe_gets_plain_lines(self, trainer: TrainerForCommands, run: pb.Run) -> None:
        losses = [1.0 - step / 1000 for step in range(500)]
        trainer.record(run.name, {"unet": losses})
        done = trainer.darkroom("runs", "watch", "toy/first")
        assert done.exit_code == 0
        assert "\x1b" not in done.output
        assert "\r" not in done.output
        steps = [line for line in done.stderr.splitlines() if line.startswith("UNet step ")]
        assert steps[0].startswith("UNet step 1 of 500: loss 1.000")
        assert steps[-1].startswith("UNet step 500 of 500: loss 0.5")
        assert len(steps) == 21

    def test_train_names_sample_images_and_shows_the_end(self, trainer: TrainerForCommands) -> None:
        trainer.session()
        done = trainer.darkroom(
            "train", "toy", "--unet-steps", "5", "--unet-rate", "1e-3", "--sample", "steps 2, sample 2"
        )
        assert done.exit_code == 0, done.output
        assert "sample after step 2 of UNet: sessions/toy/runs/" in done.stderr
        assert "SUCCEEDED" in done.stdout

    def test_a_run_that_fails_is_an_error(self, trainer: TrainerForCommands) -> None:
        trainer.session()
        done = trainer.darkroom("train", "toy", "--sample", "exit 64")
        assert done.exit_code == 1
        assert "the run is FAILED" in done.stderr

    def test_a_terminal_keeps_the_newest_sample_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = io.StringIO()
        terminal = Console(file=screen, force_terminal=True, width=160)
        monkeypatch.setattr(run_view, "console", terminal)
        view = run_view.LiveView()
        stage = run_view.Curve()
        with view:
            for step in range(1, 6):
                progress = pb.Progress(stage=pb.STAGE_UNET, step=step, num_steps=5, smoothed_loss=1 / step)
                view.step(progress, stage.add(progress))
            for step in (2, 5):
                view.sample(pb.Sample(stage=pb.STAGE_UNET, step=step, object=f"sessions/toy/samples/{step}.png"))
        shown = screen.getvalue()
        assert "█▃▁▁▁" in shown or "█▄▂▁▁" in shown
        assert shown.rstrip().endswith("sessions/toy/samples/5.png")
        assert "samples/2.png" not in shown.splitlines()[-1]


class TestSettings:
    def test_a_recipe_of_defaults_differs_only_where_the_base_model_decides(self, trainer: TrainerForCommands) -> None:
        request = pb.CreateRunRequest(parent=trainer.session(), recipe=pb.Recipe(), run_id="first")
        made = trainer.training.CreateRun(request)
        trainer.training.CancelRun(pb.CancelRunRequest(name=made.name))
        assert changed_settings(made.recipe) == {"base_model": "sd15-tiny", "resolution_px": "64"}

    def test_words(self) -> None:
        recipe = pb.Recipe(sample_prompts=["a", "b, c"], flip=True, unet=pb.StageSettings(learning_rate=2e-6))
        found = settings(recipe)
        assert (found["sample_prompts"], found["flip"], found["unet.learning_rate"]) == ("'a', 'b, c'", "True", "2e-06")
        assert found["precision"] == "unspecified"
        assert (found["lora.rank"], found["text_encoder.steps"]) == ("", "")


def _stage(steps: int) -> pb.StageSettings:
    return pb.StageSettings(steps=steps, learning_rate=1e-3)
