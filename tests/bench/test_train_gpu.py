"""The GPU benchmark's code, tried on the CPU with a micro model."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from bench import gpu_models, gpu_report, gpu_runs, train_gpu
from bench.gpu_report import OUT_OF_MEMORY, Row
from bench.gpu_step import Step, Switches

CPU = torch.device("cpu")


def start(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["train_gpu", *arguments])
    return train_gpu.main()


def test_without_a_gpu_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert start(monkeypatch) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "needs a CUDA GPU" in err
    assert "--smoke" in err


@pytest.mark.long
def test_smoke_runs_the_trainers_loop_and_the_switches_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch, "--smoke", "--batch-sizes", "1") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["switches"] for row in rows] == [
        None,
        {"compiled": False, "channels_last": False, "graph": False},
        {"compiled": True, "channels_last": True, "graph": False},
    ]
    assert all(row["failed"] == "" and row["steps_per_second"] > 0 and row["mfu"] is None for row in rows)
    assert {row["device"].split()[0] for row in rows} == {"CPU"}


@pytest.mark.parametrize("switches", [Switches(), Switches(channels_last=True)], ids=["eager", "channels_last"])
def test_a_step_trains_all_weights(switches: Switches) -> None:
    # At 64 px the deepest level has one pixel, whose attention to itself has no gradient.
    step = Step(replace(gpu_models.MICRO, edge_px=128), 2, switches, CPU)
    before = [weight.detach().clone() for weight in step.weights]
    step()
    assert 0 < float(step.last_loss) < 10
    unchanged = [b for b, weight in zip(before, step.weights, strict=True) if torch.equal(b, weight)]
    assert unchanged == []
    assert {weight.dtype for weight in step.weights} == {torch.float32}


def test_what_does_not_fit_is_reported_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_large(size: gpu_models.Size, batch_size: int, switches: Switches, device: torch.device) -> Step:
        if switches.compiled:
            raise RuntimeError("no such\nkernel")
        if batch_size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Step(size, batch_size, switches, device)

    monkeypatch.setattr(gpu_runs, "Step", too_large)
    timed = gpu_runs.Timed(gpu_models.MICRO, CPU, 1)
    assert timed.row(8, Switches()).failed == OUT_OF_MEMORY
    assert timed.row(1, Switches(compiled=True)).failed == "RuntimeError: no such"
    assert timed.row(1, Switches()).failed == ""
    assert start(monkeypatch, "--smoke", "--markdown", "--batch-sizes", "8") == 1
    assert f"| 8 | eager | {OUT_OF_MEMORY} | | | | |" in capsys.readouterr().out


def test_the_arithmetic_of_a_step_is_that_of_sd15() -> None:
    """2.407 TFLOP at batch 1 and 512 px: 0.803 forward (conv 0.444, linear 0.233, attention 0.126), three times that
    with the backward pass, less what the first layer's input needs no gradient for."""
    assert gpu_models.step_flops(gpu_models.SD15, 1, 77) / 1e12 == pytest.approx(2.407, abs=0.001)
    weights = gpu_models.SD15.build(torch.device("meta")).parameters()
    assert sum(weight.numel() for weight in weights) == 859_520_964


def test_the_table_has_a_line_for_each_row() -> None:
    machine = {"device": "NVIDIA H100", "driver": "1", "torch": "2", "cuda": "13", "date": "2026-01-02"}
    rows = [
        Row(1, None, "", 10.0, 10.0, 2.4, 0.024, 20.0, 5.0),
        Row(8, Switches(compiled=True, graph=True), "", 5.0, 40.0, 19.3, None, 40.0, 90.0),
    ]
    lines = gpu_report.markdown(machine, rows).splitlines()
    assert lines[0] == "NVIDIA H100, driver 1, torch 2 (CUDA 13), 2026-01-02."
    assert lines[-2] == "| 1 | the trainer's loop | 10.00 | 10.00 | 2.4% | 20.0 | 5 |"
    assert lines[-1] == "| 8 | compile + CUDA graph | 5.00 | 40.00 | unknown | 40.0 | 90 |"
    assert len({line.count("|") for line in lines[2:]}) == 1
