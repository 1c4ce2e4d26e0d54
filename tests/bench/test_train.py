"""The benchmarks of training run: on the micro model, a step or two of each, against a real store."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts.errors import StoreRejected
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore, StoreConfig

from bench import save_stall, train_overhead, train_steps, workshop
from bench.workshop import Workshop
from tests.dreambooth.micro_model import build


@pytest.fixture
def shop(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop around the micro model instead of the tiny one."""
    torch.set_num_threads(1)
    monkeypatch.setattr(workshop, "BASE", build(tmp_path / "micro"))
    return workshop.prepare(store, tmp_path)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("case", train_steps.CASES, ids=str)
def test_both_loops_train_the_same(shop: Workshop, case: train_steps.Case, capsys: pytest.CaptureFixture[str]) -> None:
    train_steps.measure(shop, case, blocks=1, steps=1)
    (line,) = lines(capsys)
    assert (line["bench"], line["joint"], line["batch_size"]) == ("train_steps", case.joint, case.batch_size)
    assert line["steps_per_second"] > 0
    assert line["ratio"]["median"] == pytest.approx(line["steps_per_second"] / line["plain_steps_per_second"], rel=0.01)


def test_the_loops_differ_in_nothing_but_how(shop: Workshop) -> None:
    """Same photos, same trained weights, same settings."""
    recipe = shop.order("same", joint=True, batch_size=4).recipe
    plain = shop.plain(4, joint=True)
    group = plain.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (recipe.text_encoder.learning_rate, recipe.weight_decay)
    ours = workshop.BareLoop.of(shop.order("count", joint=True))
    assert sum(w.numel() for w in group["params"]) == sum(w.numel() for w in ours.trained)
    assert [file.name for file in shop.photos] == sorted(Sessions(shop.store).image_names(workshop.SESSION))
    assert recipe.precision == "fp32"
    assert recipe.max_gradient_norm == 1.0


def test_the_overhead_is_told_for_each_kind_of_run(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    train_overhead.measure(shop, batch_size=1, rounds=1, every=2, warm=1, timed=1)
    found = lines(capsys)
    assert [line["what"] for line in found] == [
        "records",
        "records and resume points",
        "records, resume points and samples",
    ]
    assert all(line["every_steps"] == 2 and "median" in line["overhead_cpu"] for line in found)
    runs = {key.key.split("/")[3] for key in shop.store.list(f"sessions/{workshop.SESSION}/runs/")}
    samples = {key.key for key in shop.store.list(f"sessions/{workshop.SESSION}/runs/whole-1-0-2/samples/")}
    assert {"whole-1-0-0", "whole-1-0-1", "whole-1-0-2"} <= runs
    assert len(samples) == 2
    assert [line["intervals"] for line in found] == [1, 1, 1]


def test_the_stall_is_compared_with_a_blocking_save(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    save_stall.measure(shop, num_points=1)
    (line,) = lines(capsys)
    assert line["size_bytes"] > 100_000
    assert line["ratio"]["median"] == pytest.approx(
        line["blocking_seconds"]["median"] / line["stall_seconds"]["median"], rel=0.05
    )
    for kind in ("asynchronous", "blocking"):
        points = shop.store.list_folders(f"sessions/{workshop.SESSION}/runs/stall-{kind}/resume_points/")
        assert list(points), kind


def test_a_store_that_the_environment_names_is_taken_and_left_as_it_was(
    store_config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_S3_ENDPOINT", store_config.endpoint)
    monkeypatch.setenv("DARKROOM_S3_ACCESS_KEY", store_config.access_key)
    monkeypatch.setenv("DARKROOM_S3_SECRET_KEY", store_config.secret_key)
    with workshop.opened() as shop:
        assert shop.store.config.endpoint == store_config.endpoint
        assert list(shop.store.list(f"sessions/{workshop.SESSION}/"))
    with pytest.raises(StoreRejected, match="bucket"):
        list(shop.store.list("sessions/"))
