"""`darkroom demo` against a running system, with trainings of a few steps: the contact sheet and the report."""

import json
from pathlib import Path

import pytest
from darkroom_cli.demo import line
from darkroom_cli.demo.command import demo
from PIL import Image

from tests.system.conftest import Up


def test_the_demo_reports_every_step(
    up: Up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in vars(up.connection).items():
        monkeypatch.setenv(f"DARKROOM_{name.upper()}", value)
    for name in ("TEXT_ENCODER_STEPS", "UNET_STEPS", "BATCH_SIZE", "STEPS"):
        monkeypatch.setattr(line, name, 2)
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
