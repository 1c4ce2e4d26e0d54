"""Single files, .safetensors and .ckpt, beside the diffusers folder that lends them configuration and tokenizer."""

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from converter.sd15_keys import rules
from safetensors.torch import load_file, save_file

from .conftest import Running, decoded, refused

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state(running: Running) -> State:
    """The tensors of sd15-tiny under the names of the original implementation."""
    folder = running.models / "sd15-tiny"
    text = json.loads((folder / "text_encoder" / "config.json").read_text())
    tensors: State = {}
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        for name, tensor in load_file(str(file)).items():
            inner = f"text_model.{name}" if part == "text_encoder" and not name.startswith("text_model.") else name
            tensors[f"{part}.{inner}"] = tensor
    found: State = {}
    for rule in rules(text["num_hidden_layers"]):
        if rule.name in tensors:
            tensor = tensors[rule.name]
            is_convolution = rule.ldm_rank == 4 and tensor.dim() == 2
            found[rule.ldm_name] = (tensor[:, :, None, None] if is_convolution else tensor).contiguous()
    return found


@pytest.fixture
def put(running: Running, client: httpx.Client) -> Iterator[Callable[[str, Callable[[Path], None]], Path]]:
    """Write a file into the engine's folder of models and make it read the folder; removed after the test."""
    written: list[Path] = []

    def write(name: str, save: Callable[[Path], None]) -> Path:
        path = running.models / name
        written.append(path)
        save(path)
        assert client.post("/sdapi/v1/refresh-checkpoints").json() is None
        return path

    yield write
    for path in written:
        path.unlink()
    client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "sd15-tiny"})
    client.post("/sdapi/v1/refresh-checkpoints")


def draw(client: httpx.Client, model: str) -> httpx.Response:
    body = {"prompt": "a red circle", "steps": 2, "seed": 1, "override_settings": {"sd_model_checkpoint": model}}
    return client.post("/sdapi/v1/txt2img", json=body)


@pytest.mark.parametrize("name", ["single.safetensors", "single.ckpt"])
def test_a_single_file_draws_what_its_folder_draws(client: httpx.Client, put: Any, state: State, name: str) -> None:
    if name.endswith(".ckpt"):
        path = put(name, lambda path: torch.save({"state_dict": state, "global_step": 1}, path))
    else:
        path = put(name, lambda path: save_file(state, path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (model,) = [m for m in client.get("/sdapi/v1/sd-models").json() if m["model_name"] == "single"]
    assert (model["title"], model["sha256"]) == (f"{name} [{digest[:10]}]", digest)
    expected = decoded(draw(client, "sd15-tiny"))["images"][0]
    for alias in (name, "single", digest[:10], model["title"]):
        found = decoded(draw(client, alias))["images"][0]
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_hostile_pickle_is_not_run(client: httpx.Client, put: Any, state: State, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    put("hostile.ckpt", lambda path: torch.save({"state_dict": state, "x": Hostile(mark)}, path))
    refused(draw(client, "hostile"), 500, "hostile.ckpt", "more than weights")
    put("plain.ckpt", lambda path: path.write_bytes(pickle.dumps(Hostile(mark))))
    refused(draw(client, "plain"), 500, "plain.ckpt")
    assert not mark.exists()
    assert draw(client, "sd15-tiny").status_code == 200


def test_a_file_that_is_no_model(client: httpx.Client, put: Any) -> None:
    put("noise.safetensors", lambda path: path.write_bytes(b"\xff" * 1000))
    refused(draw(client, "noise"), 500, "noise.safetensors", "cannot be loaded")
    put("vae.safetensors", lambda path: save_file({"x": torch.zeros(1)}, path))
    refused(draw(client, "vae.safetensors"), 500, "vae.safetensors", "cannot be loaded")


def test_a_file_without_its_base_model_says_so(client: httpx.Client, put: Any, state: State) -> None:
    name = "model.diffusion_model.input_blocks.0.0.weight"
    wide = {**state, name: torch.zeros(320, *state[name].shape[1:])}
    put("wide.safetensors", lambda path: save_file(wide, path))
    refused(draw(client, "wide"), 500, "wide.safetensors", "sd15-tiny", "DARKROOM_MODELS")


def test_a_file_that_predicts_v_is_not_drawn_with_a_base_that_predicts_noise(
    client: httpx.Client, put: Any, state: State
) -> None:
    put("velocity.safetensors", lambda path: save_file({**state, "v_pred": torch.zeros(0)}, path))
    refused(draw(client, "velocity"), 500, "velocity.safetensors", "v_prediction", "sd15-tiny (epsilon)")
