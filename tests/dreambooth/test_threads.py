"""Small trainings compute in one thread, large ones and those told otherwise in what there is."""

from collections.abc import Iterator

import pytest
import torch
from dreambooth import threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_steps_take_one_thread() -> None:
    threads.settle(CPU, {"text_encoder": int(1e9), "unet": int(4e9)})
    assert torch.get_num_threads() == 1


def test_one_large_stage_takes_all() -> None:
    threads.settle(CPU, {"text_encoder": int(1e9), "unet": int(2e12)})
    assert torch.get_num_threads() == 2


def test_what_the_environment_says_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    threads.settle(CPU, {"unet": 1})
    assert torch.get_num_threads() == 2


def test_a_gpu_leaves_the_host_alone() -> None:
    threads.settle(torch.device("cuda"), {"unet": 1})
    assert torch.get_num_threads() == 2
