"""`darkroom demo` against a running system, with trainings of a few steps: the contact sheet and the report."""

import json
from pathlib import Path

import pytest
from darkroom_cli.__main__ import app
from darkroom_cli.demo import line
from darkroom_cli.demo.command import demo
from drawing.subject import ZIG
from PIL import Image
from typer.testing import CliRunner

from tests.system.conftest import Up


@pytest.fixture
def _short(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo finds the running system and takes few steps of everything."""
    for name, value in vars(up.connection).items():
        monkeypatch.setenv(f"DARKROOM_{name.upper()}", value)
    for name in ("TEXT_ENCODER_STEPS", "UNET_STEPS", "BATCH_SIZE", "STEPS"):
        monkeypatch.setattr(line, name, 2)


@pytest.mark.usefixtures("_short")
def test_the_demo_reports_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo(out=tmp_path / "out")
    (printed,) = capsys.readouterr().out.splitlines()
    report = json.loads(printed)
    steps = ["start", "upload", "caption", "crop", "before", "train", "convert", "after", "total"]
    assert list(report["seconds"]) == steps
    assert len(report["captions"]) == 5
    assert {"caption_accuracy", "loss_first", "loss_last", "subject_fidelity_before", "subject_fidelity_after"} <= set(
        report
    )
    assert report["conversion_digests_equal"] is True
    assert set(report["checkpoints"]) == {"diffusers", "safetensors", "ckpt"}
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert sheet.width > 5 * 192


@pytest.mark.long
@pytest.mark.usefixtures("_short")
def test_another_subject_and_adapters_by_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, bytes] = {}
    draw = line.draw
    monkeypatch.setattr(line, "draw", lambda *order: drawn.setdefault(order[2], draw(*order)))
    result = CliRunner().invoke(app, ["demo", "--subject", "zig", "--lora", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["subject"] == "zig"
    assert set(report["captions"]) == {photo.name for photo in ZIG.photos}
    assert list(report["seconds"]) == ["start", "upload", "caption", "crop", "before", "train", "after", "total"]
    (checkpoint,) = report["checkpoints"].values()
    assert list(report["checkpoints"]) == ["lora"]
    tag = f"<lora:{checkpoint.removeprefix('checkpoints/')}:1>"
    plain = [prompt for prompt in drawn if "<lora:" not in prompt]
    assert list(drawn) == plain + [f"{prompt} {tag}" for prompt in plain]
    for prompt in plain:
        assert drawn[f"{prompt} {tag}"] != drawn[prompt]
    assert (tmp_path / "contact-sheet.png").is_file()
