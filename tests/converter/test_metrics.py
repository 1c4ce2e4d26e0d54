"""The metrics of conversions, and the settings of the program."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.store import ObjectStore
from chassis.metrics import process_registry
from converter import __main__ as program
from converter.jobs import Jobs
from converter.metrics import ConversionMetrics


def test_a_conversion_is_counted(publish: Callable[..., Manifest], micro_files: Any, store: ObjectStore) -> None:
    publish("toy", micro_files)
    registry = process_registry()
    labels = {"format": "ckpt", "state": "SUCCEEDED"}
    jobs = Jobs(Checkpoints(store), ConversionMetrics(registry))
    assert registry.get_sample_value("darkroom_conversion_seconds_count", labels) == 0, (
        "a rate has nothing to count from"
    )
    jobs.start()
    changed = threading.Event()
    jobs.listen(changed.set)
    try:
        jobs.create("toy", "ckpt", "", "", "")
        while jobs.is_live("toy.ckpt"):
            assert changed.wait(60)
            changed.clear()
    finally:
        jobs.stop()
    done = jobs.get("toy.ckpt")
    assert registry.get_sample_value("darkroom_conversion_bytes_total", {"format": "ckpt"}) == done.num_bytes
    assert registry.get_sample_value("darkroom_conversion_seconds_count", labels) == 1
    assert registry.get_sample_value("darkroom_conversions_active") == 0


def test_help_lists_the_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["converter", "--help"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "DARKROOM_CONVERTER_WORKERS" in printed
    assert "DARKROOM_S3_ENDPOINT" in printed


def test_a_wrong_configuration_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["converter"])
    monkeypatch.setenv("DARKROOM_CONVERTER_WORKERS", "0")
    monkeypatch.delenv("DARKROOM_S3_ENDPOINT", raising=False)
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 64
    printed = capsys.readouterr().err
    assert "DARKROOM_CONVERTER_WORKERS" in printed
    assert "DARKROOM_S3_ENDPOINT" in printed
