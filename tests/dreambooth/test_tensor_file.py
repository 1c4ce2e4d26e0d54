import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dreambooth import parts, recipe, stages, state, tensor_file
from dreambooth.parts import Parts
from dreambooth.state import StageState
from safetensors.torch import load_file

CPU = torch.device("cpu")
TENSORS = {
    "b half": torch.arange(3, dtype=torch.float16),
    "a byte": torch.tensor([1, 255, 0], dtype=torch.uint8),
    "scalar": torch.tensor(7.5),
    "wide": torch.arange(6, dtype=torch.float64).view(2, 3),
    "brain": torch.tensor([1.0, float("nan")], dtype=torch.bfloat16),
    "turned": torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "numbers": torch.tensor([-(2**40)]),
    "flags": torch.tensor([True, False]),
    "nothing": torch.zeros(0, 3),
}


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    tensor_file.write(TENSORS, tmp_path / "t")
    found, own = load_file(tmp_path / "t"), tensor_file.read(tmp_path / "t", CPU)
    for name, tensor in TENSORS.items():
        for read in (found[name], own[name]):
            assert read.dtype == tensor.dtype
            assert torch.equal(read.nan_to_num(), tensor.nan_to_num()), name
    assert found.keys() == own.keys() == TENSORS.keys()


def test_what_is_read_stays_when_the_file_changes(tmp_path: Path) -> None:
    tensor_file.write({"a": torch.ones(4)}, tmp_path / "t")
    found = tensor_file.read(tmp_path / "t", CPU)
    with (tmp_path / "t").open("r+b") as file:
        file.seek(-16, 2)
        file.write(bytes(16))
    assert found["a"].tolist() == [1, 1, 1, 1]


def test_a_full_disk_is_told_with_the_systems_error() -> None:
    with pytest.raises(OSError, match="No space left on device") as refused:
        tensor_file.write(TENSORS, Path("/dev/full"))
    assert refused.value.errno == errno.ENOSPC


def test_a_state_is_taken_apart_and_put_together() -> None:
    shared = torch.ones(2)
    whole = {
        "state": {0: {"m": shared, "n": 3}, 1: {"m": shared}},
        "groups": [{"betas": (0.9, torch.zeros(1))}],
        "s": None,
    }
    tensors: dict[str, torch.Tensor] = {}
    rest = tensor_file.take_out(whole, tensors)
    assert len(tensors) == 2
    json.dumps(rest)  # no tensor is left
    again = tensor_file.put_back(rest, tensors)
    assert again["state"][0]["m"] is again["state"][1]["m"] is shared
    assert again["groups"][0]["betas"] == (0.9, torch.zeros(1))
    assert (again["state"][0]["n"], again["s"]) == (3, None)


@pytest.fixture
def begun(micro: Path, order: Callable[..., dict[str, Any]]) -> Callable[[], tuple[StageState, Parts]]:
    """A UNet stage over the base model, with moments of one update."""

    def begin() -> tuple[StageState, Parts]:
        from dreambooth import base_model

        parsed = recipe.parse(json.dumps(order(text_encoder={"steps": 0}, ema_decay=0.9)))
        model = parts.load(base_model.describe("micro", micro), CPU)
        made = StageState(parsed, model, stages.of(parsed)[0])
        for _, weight in stages.trainable(model, "unet"):
            weight.grad = torch.full_like(weight, 1e-3)
        made.optimizer.update({"unet": 1e-3})
        made.advance()
        return made, model

    return begin


@pytest.mark.parametrize("is_old", [False, True])
def test_a_point_is_loaded_bit_for_bit_also_an_old_one(
    begun: Callable[[], tuple[StageState, Parts]], tmp_path: Path, is_old: bool
) -> None:
    saved, model = begun()
    saved.optimizer.update({"unet": 1e-3})
    saved.save(tmp_path)
    before = saved.optimizer.state_dict()
    if is_old:
        (tmp_path / state.MOMENTS).unlink()
        torch.save(before, tmp_path / state.OPTIMIZER)
    loaded, other = begun()
    loaded.load(tmp_path, 1)
    after = loaded.optimizer.state_dict()
    assert before["optimizer"]["param_groups"] == after["optimizer"]["param_groups"]
    for index, moments in before["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, after["optimizer"]["state"][index][name])
    for (name, weight), (_, again) in zip(
        stages.trainable(model, "unet"), stages.trainable(other, "unet"), strict=True
    ):
        assert torch.equal(weight, again), name
    averages = loaded.averages.tensors()
    assert all(torch.equal(tensor, averages[name]) for name, tensor in saved.averages.tensors().items())
