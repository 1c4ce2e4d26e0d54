"""LoRAs: merged exactly, taken out without a trace, refused by name when they do not fit. Files are made by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from artifacts.checkpoints import Checkpoints, Manifest
from diffusers import UNet2DConditionModel
from safetensors.numpy import load_file, save_file
from transformers import CLIPTextModel
from webui_engine import lora
from webui_engine.errors import LoraMismatch, ModelBroken
from webui_engine.lora_catalogue import Lora, LoraUse
from webui_engine.lora_tags import Tag

from .conftest import Running, decoded, refused

BLOCK = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
# kohya's name: (outputs, what each reads), alpha or None, and where the weights are in the model.
PLACES: dict[str, tuple[tuple[int, ...], float | None, str]] = {
    f"{BLOCK}_attn2_to_k": ((32, 768), 4.0, "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"),
    f"{BLOCK}_attn1_to_out_0": ((32, 32), 1.0, "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight"),
    "lora_unet_down_blocks_0_attentions_0_proj_in": ((32, 32, 1, 1), 2.0, "down_blocks.0.attentions.0.proj_in.weight"),
    "lora_unet_down_blocks_0_resnets_0_conv1": ((32, 32, 3, 3), None, "down_blocks.0.resnets.0.conv1.weight"),
    TEXT: ((768, 768), 4.0, "text_model.encoder.layers.0.self_attn.q_proj.weight"),
}
RANK = 2
FIELDS = {
    "format": "safetensors",
    "kind": "lora",
    "precision": "fp32",
    "prediction_type": "epsilon",
    "resolution": 64,
    "base_model": "sd15-tiny",
    "recipe": {"lora": {"rank": RANK, "alpha": 4.0}},
}
Arrays = dict[str, np.ndarray[Any, Any]]


def tensors(seed: int = 0) -> Arrays:
    """A LoRA for all places. Small multiples of 1/8, so that products and sums of them are exact in any order."""
    random = np.random.default_rng(seed)
    made: Arrays = {}
    for name, (shape, alpha, _) in PLACES.items():
        kernel = [1] * (len(shape) - 2)
        made[f"{name}.lora_down.weight"] = random.integers(-2, 3, (RANK, *shape[1:])).astype(np.float32) / 8
        made[f"{name}.lora_up.weight"] = random.integers(-2, 3, (shape[0], RANK, *kernel)).astype(np.float32) / 8
        if alpha is not None:
            made[f"{name}.alpha"] = np.array(alpha, np.float32)
    return made


def deltas(made: Arrays, text_encoder: float, unet: float) -> Arrays:
    """What the LoRA adds, computed apart: by the model's own names."""
    added = {}
    for name, (shape, alpha, place) in PLACES.items():
        down, up = (made[f"{name}.lora_{part}.weight"] for part in ("down", "up"))
        weight = (text_encoder if name == TEXT else unet) * (RANK if alpha is None else alpha) / RANK
        added[place] = weight * np.einsum("or,ri->oi", up.reshape(len(up), -1), down.reshape(RANK, -1)).reshape(shape)
    return added


@pytest.fixture
def put(running: Running, client: httpx.Client) -> Iterator[Callable[..., Path]]:
    """Put a LoRA file into the engine's folder and let it look. Removed after the test."""
    paths: list[Path] = []

    def file(name: str, made: Arrays, **metadata: str) -> Path:
        path = running.loras / f"{name}.safetensors"
        save_file(made, path, metadata=metadata or None)
        paths.append(path)
        assert client.post("/sdapi/v1/refresh-loras").json() is None
        return path

    yield file
    for path in paths:
        path.unlink()
    client.post("/sdapi/v1/refresh-loras")


@pytest.fixture
def publish(running: Running, tmp_path: Path) -> Iterator[Callable[..., Manifest]]:
    """Publish files, by their path in the checkpoint. Removed after the test."""
    checkpoints = Checkpoints(running.store)
    published: list[str] = []

    def files(checkpoint_id: str, made: dict[str, Arrays | Path], **fields: Any) -> Manifest:
        with checkpoints.begin(checkpoint_id, **{"architecture": "sd15", **FIELDS, **fields}) as writer:
            for number, (path, content) in enumerate(made.items()):
                source = content if isinstance(content, Path) else tmp_path / f"{checkpoint_id}-{number}"
                if not isinstance(content, Path):
                    save_file(content, source, metadata={"format": "pt"})
                writer.add_file(path, source)
            published.append(checkpoint_id)
            return writer.publish()

    yield files
    for checkpoint_id in published:
        checkpoints.delete(checkpoint_id)


Txt2Img = Callable[..., dict[str, Any]]


def picture(txt2img: Txt2Img, prompt: str, **fields: Any) -> bytes:
    drawn: bytes = txt2img(prompt=prompt, **fields)["images"][0].tobytes()
    return drawn


def merged_model(running: Running, added: Arrays) -> dict[str, Path | Arrays]:
    """The files of sd15-tiny with something added to its weights."""
    folder = running.models / "sd15-tiny"
    files: dict[str, Path | Arrays] = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    for file in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        weights = load_file(folder / file)
        own = {name: array for name, array in added.items() if name in weights}
        assert own
        files[file] = weights | {name: weights[name] + array for name, array in own.items()}
    return files


def test_it_draws_like_a_model_with_the_weights_merged(
    txt2img: Txt2Img, put: Callable[..., Path], publish: Callable[..., Manifest], running: Running
) -> None:
    first, second = tensors(1), tensors(2)
    put("first", first)
    put("second", second)
    both = deltas(first, 0.5, 0.5)
    for name, array in deltas(second, 0.25, -1).items():
        both[name] = both[name] + array
    publish("merged", merged_model(running, both), kind="dreambooth", format="diffusers")
    expected = picture(txt2img, "a red circle", override_settings={"sd_model_checkpoint": "merged"})
    plain = picture(txt2img, "a red circle")
    assert plain != expected
    assert picture(txt2img, "a <lora:first:0.5>red circle<lora:SECOND:0.25:-1>") == expected
    assert picture(txt2img, "a red circle<lora:first:0.5:0>") not in (plain, expected)  # the text encoder alone
    assert picture(txt2img, "a red circle<lora:first:0:0.5>") not in (plain, expected)  # the UNet alone


def test_it_leaves_no_trace(txt2img: Txt2Img, put: Callable[..., Path]) -> None:
    put("toy", tensors())
    before = picture(txt2img, "a red circle")
    assert picture(txt2img, "a red circle<lora:toy:0>") == before
    drawn = picture(txt2img, "a red circle<lora:toy>")
    assert drawn != before
    assert picture(txt2img, "a red circle") == before
    assert picture(txt2img, "a red circle<lora:toy:1>") == drawn
    assert picture(txt2img, "a red circle<lora:toy:7>", disable_extra_networks=True) == before


def test_infotext_names_it_as_a1111_does(txt2img: Txt2Img, client: httpx.Client, put: Callable[..., Path]) -> None:
    put("toy", tensors(), sshs_model_hash="ab" * 32)
    put("hat", tensors(1), sshs_model_hash="cd" * 32)
    prompt = "a <lora:toy:0.5> in a <lora:hat:1>"
    reply = txt2img(prompt=prompt)
    (text,) = reply["info"]["infotexts"]
    assert text.startswith(f"{prompt}\nSteps: 2,")
    hashes = f"toy: {'ab' * 6}, hat: {'cd' * 6}"
    assert f'RNG: CPU, Lora hashes: "{hashes}", Version:' in text
    assert reply["info"]["extra_generation_params"] == {"Lora hashes": hashes}
    read = client.post("/sdapi/v1/png-info", json={"image": reply["png"][0]}).json()["parameters"]
    assert (read["Lora hashes"], read["Prompt"]) == (hashes, prompt)


def test_files_are_listed_after_a_refresh(client: httpx.Client, put: Callable[..., Path], running: Running) -> None:
    (running.loras / "notes.safetensors").write_text("no weights")
    path = put("toy", tensors(), ss_output_name="Pip the toy")
    (running.loras / "notes.safetensors").unlink()
    assert client.get("/sdapi/v1/loras").json() == [
        {"name": "toy", "alias": "Pip the toy", "path": str(path), "metadata": {"ss_output_name": "Pip the toy"}}
    ]


def test_a_published_one_appears_and_draws_like_its_file(
    client: httpx.Client, txt2img: Txt2Img, put: Callable[..., Path], publish: Callable[..., Manifest]
) -> None:
    put("file", tensors())
    publish("pip-lora", {"lora.safetensors": tensors(), "pytorch_lora_weights.safetensors": tensors(1)}, title="Pip")
    _, listed = client.get("/sdapi/v1/loras").json()
    assert (listed["name"], listed["alias"]) == ("pip-lora", "Pip")
    assert listed["metadata"] == {
        "ss_output_name": "pip-lora",
        "ss_sd_model_name": "sd15-tiny",
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_network_dim": "2",
        "ss_network_alpha": "4.0",
        "ss_resolution": "(64, 64)",
    }
    assert not [line for line in client.get("/sdapi/v1/sd-models").json() if "pip-lora" in line["title"]]
    expected = picture(txt2img, "a<lora:file:0.5>")
    for name in ("pip-lora", "PIP", "checkpoints/pip-lora"):
        assert picture(txt2img, f"a<lora:{name}:0.5>") == expected


def test_an_unknown_one_names_those_there_are(client: httpx.Client, put: Callable[..., Path]) -> None:
    put("toy", tensors())
    reply = client.post("/sdapi/v1/txt2img", json={"prompt": "<lora:toi:1>", "steps": 1})
    refused(reply, 422, "prompt: LoRA 'toi' not found; closest: toy")


@pytest.mark.parametrize("prompt", ["<lora:other:1>", "<lora:toy:1><lora:other:1>"])
def test_one_of_another_architecture_is_refused_with_both_names(
    client: httpx.Client, txt2img: Txt2Img, put: Callable[..., Path], publish: Callable[..., Manifest], prompt: str
) -> None:
    put("toy", tensors())
    publish("other", {"lora.safetensors": tensors()}, architecture="sd21", base_model="sd21-tiny")
    before = picture(txt2img, "a")
    reply = client.post("/sdapi/v1/txt2img", json={"prompt": prompt, "steps": 1})
    refused(
        reply, 422, "LoRA 'other' (sd21, trained on 'sd21-tiny') does not fit model 'sd15-tiny [", "the model is sd15"
    )
    assert picture(txt2img, "a") == before


def test_one_of_another_width_is_refused_with_both_names(
    client: httpx.Client, put: Callable[..., Path], txt2img: Txt2Img
) -> None:
    wide = tensors()
    name = f"{BLOCK}_attn2_to_k"
    wide[f"{name}.lora_up.weight"] = np.zeros((320, RANK), np.float32)
    put("wide", wide, ss_sd_model_name="sd15")
    reply = client.post("/sdapi/v1/txt2img", json={"prompt": "<lora:wide:0>", "steps": 1})
    why = f"layer {name} is 320 x 768, the model's is 32 x 768"
    refused(reply, 422, "LoRA 'wide' (sd15, trained on 'sd15') does not fit model 'sd15-tiny [", why)


def test_a_damaged_one_is_told_and_harms_nothing(
    client: httpx.Client, txt2img: Txt2Img, publish: Callable[..., Manifest], running: Running
) -> None:
    before = picture(txt2img, "a")
    manifest = publish("damaged", {"lora.safetensors": tensors()})
    key = Checkpoints(running.store).key(manifest, "lora.safetensors")
    data = bytearray(running.store.get(key))
    data[-1] ^= 1
    running.store.put(key, bytes(data))
    reply = client.post("/sdapi/v1/txt2img", json={"prompt": "a<lora:damaged>", "steps": 1})
    refused(reply, 500, "LoRA 'damaged' cannot be loaded", "lora.safetensors", "sha256")
    assert picture(txt2img, "a") == before
    data[-1] ^= 1
    running.store.put(key, bytes(data))
    assert picture(txt2img, "a<lora:damaged>") != before


def test_img2img_takes_them_too(client: httpx.Client, txt2img: Txt2Img, put: Callable[..., Path]) -> None:
    put("toy", tensors())
    start = txt2img()["png"]
    body = {"init_images": start, "steps": 4, "seed": 1, "denoising_strength": 0.8}
    drawn = [
        decoded(client.post("/sdapi/v1/img2img", json={"prompt": prompt, **body}))["images"][0].tobytes()
        for prompt in ("a", "a<lora:toy:1>", "a")
    ]
    assert drawn[0] == drawn[2] != drawn[1]


# What follows looks at the weights themselves.


def use(path: Path, name: str = "toy", **tag: float) -> LoraUse:
    return LoraUse(Lora(name, name, path, "sd15", "sd15", "00"), Tag(name, **tag))


@pytest.fixture
def parts(tiny_models: Path) -> SimpleNamespace:
    """UNet and text encoder of sd15-tiny."""
    folder = tiny_models / "sd15-tiny"
    return SimpleNamespace(
        unet=UNet2DConditionModel.from_pretrained(str(folder / "unet")),
        text_encoder=CLIPTextModel.from_pretrained(str(folder / "text_encoder")),
    )


def weights(parts: SimpleNamespace) -> dict[str, torch.Tensor]:
    states = {"unet": parts.unet.state_dict(), "text_encoder": parts.text_encoder.state_dict()}
    return {f"{part}.{name}": tensor.clone() for part, state in states.items() for name, tensor in state.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_come_back_bit_for_bit(parts: SimpleNamespace, tmp_path: Path, dtype: torch.dtype) -> None:
    parts.unet.to(dtype)
    parts.text_encoder.to(dtype)
    before = weights(parts)
    toy, hat = (use(tmp_path / name, name) for name in ("toy", "hat"))
    for seed, each in enumerate((toy, hat)):
        save_file(tensors(seed), each.lora.path)
    layers = [lora.read(each.lora) for each in (toy, hat)]
    merged = lora.Merged(parts.unet, parts.text_encoder)
    for number in (0, 1):
        merged.check((toy, hat)[number].lora, layers[number], "tiny")
    merged.set([toy, hat], layers)
    changed = {name for name, tensor in weights(parts).items() if not torch.equal(tensor, before[name])}
    assert len(changed) == len(PLACES)
    merged.set([hat], layers[1:])
    after = weights(parts)
    name = "unet.down_blocks.0.resnets.0.conv1.weight"
    added = torch.from_numpy(deltas(tensors(1), 1, 1)[name.removeprefix("unet.")])
    assert torch.equal(after[name], (before[name].float() + added).to(dtype))
    merged.restore()
    assert merged.uses == ()
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(parts).items())


def test_the_same_ones_are_not_merged_again(running: Running, put: Callable[..., Path], txt2img: Txt2Img) -> None:
    path = put("toy", tensors())
    txt2img(prompt="a<lora:toy:0.5>")
    loaded = next(reversed(running.engine._memory()._loaded.values()))
    weight = loaded.unet.down_blocks[0].resnets[0].conv1.weight
    data = path.read_bytes()
    path.write_bytes(b"not read")
    txt2img(prompt="another<lora:toy:0.5>", seed=3)
    assert loaded.unet.down_blocks[0].resnets[0].conv1.weight is weight
    path.write_bytes(data)
    txt2img(prompt="a<lora:toy:0.25>")
    assert loaded.unet.down_blocks[0].resnets[0].conv1.weight is not weight


def test_a_merge_that_breaks_changes_nothing(parts: SimpleNamespace, tmp_path: Path) -> None:
    toy = use(tmp_path / "toy")
    save_file(tensors(), toy.lora.path)
    layers = lora.read(toy.lora)
    last = list(layers)[-1]
    broken = layers | {last: lora.Layer(torch.zeros(2, 5), torch.zeros(5, 2), 1.0)}  # was never checked
    before = weights(parts)
    merged = lora.Merged(parts.unet, parts.text_encoder)
    with pytest.raises(RuntimeError):
        merged.set([toy], [broken])
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(parts).items())
    assert merged.uses == ()


def test_the_names_of_sdxls_first_text_encoder_mean_the_only_one(parts: SimpleNamespace, tmp_path: Path) -> None:
    toy = use(tmp_path / "toy")
    made = {name.replace("lora_te_", "lora_te1_"): array for name, array in tensors().items()}
    save_file(made, toy.lora.path)
    assert TEXT in lora.read(toy.lora)


def test_layers_that_the_model_lacks_are_named(parts: SimpleNamespace, tmp_path: Path) -> None:
    toy = use(tmp_path / "toy")
    made = {name.replace("down_blocks_0", "down_blocks_9"): array for name, array in tensors().items()}
    save_file(made, toy.lora.path)
    merged = lora.Merged(parts.unet, parts.text_encoder)
    with pytest.raises(LoraMismatch, match=r"'toy' .* model 'tiny': .*lora_unet_down_blocks_9_.*\(4 of 5\)"):
        merged.check(toy.lora, lora.read(toy.lora), "tiny")


DOWN, UP = np.zeros((2, 32), np.float32), np.zeros((32, 2), np.float32)


@pytest.mark.parametrize(
    ("made", "part"),
    [
        ({}, "found no tensor"),
        ({"unet.down_blocks.0.to_k.lora_A.weight": DOWN}, "unet.down_blocks.0.to_k.lora_A.weight"),
        ({"lora_unet_a.hada_w1_a": DOWN}, "lora_unet_a.hada_w1_a"),
        ({"lora_te2_a.lora_down.weight": DOWN, "lora_te2_a.lora_up.weight": UP}, "lora_te2_a"),
        ({"lora_unet_a.lora_down.weight": DOWN}, "lacks lora_up.weight"),
        ({"lora_unet_a.lora_up.weight": UP}, "lacks lora_down.weight"),
        ({"lora_unet_a.lora_down.weight": DOWN, "lora_unet_a.lora_up.weight": UP[:, :1]}, "no rank in common"),
        ({"lora_unet_a.lora_down.weight": DOWN, "lora_unet_a.lora_up.weight": UP[:0]}, "no rank in common"),
        ({"lora_unet_a.lora_down.weight": DOWN * np.nan, "lora_unet_a.lora_up.weight": UP}, "not finite"),
        (
            {"lora_unet_a.lora_down.weight": DOWN, "lora_unet_a.lora_up.weight": UP, "lora_unet_a.alpha": UP},
            "64 numbers",
        ),
    ],
)
def test_a_file_in_another_layout_is_told(tmp_path: Path, made: Arrays, part: str) -> None:
    toy = use(tmp_path / "toy")
    save_file({name: np.ascontiguousarray(array) for name, array in made.items()}, toy.lora.path)
    with pytest.raises(ModelBroken, match=f"LoRA 'toy' cannot be loaded: .*{part}"):
        lora.read(toy.lora)
