"""LoRAs through the gateway: which fits which model, how tags are spelled, and real engines that apply them."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from artifacts.checkpoints import Checkpoints, FileEntry, Manifest
from artifacts.store import ObjectStore
from darkroom.webui.v1 import generation_pb2 as pb
from darkroom.webui.v1.generation_pb2_grpc import GenerationServiceStub
from PIL import Image
from safetensors.numpy import save_file
from webui_gateway.architectures import BaseModel, Width
from webui_gateway.errors import LoraMismatch, LoraUnavailable, RequestInvalid, UnknownLora
from webui_gateway.loras import LoraLine, LoraRegistry, family_of
from webui_gateway.models import Listing, ModelRegistry

TXT2IMG = "/sdapi/v1/txt2img"
NARROW = Width(768, (32, 64, 96, 128))
A, B = "http://a", "http://b"
FIELDS: dict[str, Any] = {
    "format": "safetensors",
    "architecture": "sd15",
    "kind": "lora",
    "precision": "fp32",
    "prediction_type": "epsilon",
    "resolution": 64,
    "base_model": "tiny",
}


def manifest(name: str, **fields: Any) -> Manifest:
    return Manifest(id=name, **{**FIELDS, "files": (FileEntry("lora.safetensors", 1, "ab" * 32),), **fields})


@pytest.fixture
def models() -> ModelRegistry:
    registry = ModelRegistry([BaseModel("tiny", "sd15", "epsilon", 64, width=NARROW)])
    listings = {A: [Listing("tiny", "tiny"), Listing("foreign", "foreign"), Listing("sd15", "sd15")]}
    registry.refresh(listings, [manifest("trained", kind="dreambooth")])
    return registry


@pytest.fixture
def loras(models: ModelRegistry) -> LoraRegistry:
    registry = LoraRegistry()
    lines = {A: [LoraLine("toy"), LoraLine("Hat", "My hat"), LoraLine("wide", family="sdxl")], B: [LoraLine("far")]}
    published = [
        manifest("toy", title="Pip"),
        manifest("of-trained", base_model="trained"),
        manifest("v2", architecture="sd21", base_model="sd21-768"),
        manifest("trained", kind="dreambooth"),
    ]
    registry.refresh(lines, published, models.width)
    return registry


def spelled(loras: LoraRegistry, models: ModelRegistry, prompt: str, model: str = "tiny", **fields: Any) -> str:
    return str(loras.addressed({"prompt": prompt, **fields}, models.usable(model), A)["prompt"])


def test_only_loras_are_known(loras: LoraRegistry) -> None:
    assert [lora.name for lora in loras.all()] == ["Hat", "far", "of-trained", "toy", "v2", "wide"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a (dog:1.2)", "a (dog:1.2)"),
        ("a<lora:toy:0.5> b", "a<lora:toy:0.5> b"),
        ("<lora:toy><LyCo:hat:0.5:1>", "<lora:toy><lyco:Hat:0.5:1>"),
        ("<lora:My hat:1>", "<lora:My hat:1>"),
        ("<lora: my HAT :1>", "<lora:Hat:1>"),
        ("<lora:pip:1><lora:checkpoints/toy:1>", "<lora:toy:1><lora:toy:1>"),
    ],
)
def test_tags_are_spelled_as_the_back_end_does(
    loras: LoraRegistry, models: ModelRegistry, prompt: str, expected: str
) -> None:
    assert spelled(loras, models, prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ("<lora:toi:1>", UnknownLora, "unknown LoRA 'toi'; did you mean toy"),
        (
            "<lora:toy:1><lora:v2:1>",
            LoraMismatch,
            "LoRA v2 does not fit model tiny: .* sd21, trained on sd21-768, .* sd15",
        ),
        ("<lora:wide:1>", LoraMismatch, "LoRA wide does not fit model tiny: it is made for sdxl, the model is sd15"),
        ("<lora:far:1>", LoraUnavailable, "LoRA far .* no back end that has model tiny"),
        ("<lora:of-trained:1>", LoraUnavailable, "LoRA of-trained"),
    ],
)
def test_what_cannot_be_applied_is_refused_with_both_names(
    loras: LoraRegistry, models: ModelRegistry, prompt: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        spelled(loras, models, prompt)


@pytest.mark.parametrize("name", ["toy", "of-trained"])
def test_the_width_of_its_base_model_counts(loras: LoraRegistry, models: ModelRegistry, name: str) -> None:
    with pytest.raises(LoraMismatch, match=rf"LoRA {name} does not fit model sd15: .*\(32, 64, 96, 128\).*\(320, 640"):
        spelled(loras, models, f"<lora:{name}:1>", "sd15")


def test_of_a_foreign_model_nothing_is_refused(loras: LoraRegistry, models: ModelRegistry) -> None:
    assert spelled(loras, models, "<lora:wide:1>", "foreign") == "<lora:wide:1>"


def test_negative_prompts_have_none(loras: LoraRegistry, models: ModelRegistry) -> None:
    with pytest.raises(RequestInvalid, match="negative_prompt: found '<lora:toy:1>'"):
        spelled(loras, models, "a", negative_prompt="b<lora:toy:1>")


def test_tags_that_are_switched_off_go_on_as_they_are(loras: LoraRegistry, models: ModelRegistry) -> None:
    prompt = "<lora:no such:1>"
    assert spelled(loras, models, prompt, disable_extra_networks=True) == prompt
    assert not loras.lacks({"prompt": prompt, "disable_extra_networks": True})


@pytest.mark.parametrize(
    ("prompt", "lacks"),
    [("a", False), ("<lora:PIP>", False), ("<lora:toy><lora:no such:1>", True), ("<lora:v2:1>", True)],
)
def test_a_lora_that_no_back_end_has_may_be_new(loras: LoraRegistry, prompt: str, lacks: bool) -> None:
    assert loras.lacks({"prompt": prompt}) is lacks
    assert loras.lacks({"prompt": None, "hr_prompt": prompt}) is lacks


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"ss_base_model_version": "sd_v1"}, "sd15"),
        ({"ss_base_model_version": "sd_v2_v"}, "sd21"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd15"),
        ({"ss_base_model_version": None}, ""),
        ({}, ""),
    ],
)
def test_metadata_tell_the_family(metadata: dict[str, Any], family: str) -> None:
    assert family_of(metadata) == family


@pytest.fixture
def toy(shared_store: ObjectStore, tmp_path: Path) -> Iterator[str]:
    """A LoRA checkpoint for sd15-tiny in the bucket."""
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v"
    random = np.random.default_rng(0)
    tensors = {
        f"{layer}.lora_down.weight": random.normal(size=(2, 768)).astype(np.float32) / 8,
        f"{layer}.lora_up.weight": random.normal(size=(32, 2)).astype(np.float32) / 8,
    }
    save_file(tensors, tmp_path / "lora")
    checkpoints = Checkpoints(shared_store)
    with checkpoints.begin("toy-lora", **{**FIELDS, "base_model": "sd15-tiny"}, title="Toy") as writer:
        writer.add_file("lora.safetensors", tmp_path / "lora")
        writer.publish()
    yield "toy-lora"
    checkpoints.delete("toy-lora")


async def drawn(up: Any, **fields: Any) -> bytes:
    body = {"prompt": "a", "steps": 2, "seed": 7, **fields}
    answer = await up.http.post(TXT2IMG, json={**body, "override_settings": {"sd_model_checkpoint": "sd15-tiny"}})
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0]))).tobytes()


async def test_a_published_lora_is_listed_and_drawn_at_once(up: Any, toy: str) -> None:
    before = await drawn(up)
    with_it = await drawn(up, prompt=f"a<lora:{toy}:1>")
    assert with_it != before
    assert await drawn(up, prompt="a<lora:TOY:1>") == with_it
    assert await drawn(up, prompt=f"a<lora:{toy}:0>") == before
    assert await drawn(up) == before
    listed = (await up.http.get("/sdapi/v1/loras")).json()
    assert [(line["name"], line["alias"], set(line)) for line in listed] == [
        (toy, "Toy", {"name", "alias", "path", "metadata"})
    ]
    assert (await up.http.post("/sdapi/v1/refresh-loras")).status_code == 200
    assert toy not in (await up.http.get("/sdapi/v1/sd-models")).text


async def test_grpc_draws_with_it_and_refuses_by_name(up: Any, toy: str) -> None:
    stub = GenerationServiceStub(up.grpc)
    body = {"model": "models/sd15-tiny", "steps": 2}
    updates = [update async for update in stub.Generate(pb.GenerateRequest(prompt=f"a<lora:{toy}:1>", **body))]
    assert f'Lora hashes: "{toy}: ' in updates[-1].result.images[0].infotext
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stub.Generate(pb.GenerateRequest(prompt="a<lora:toi-lora:1>", **body))))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert f"did you mean {toy}" in (caught.value.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stub.Generate(pb.GenerateRequest(model=f"models/{toy}"))))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a1111_gets_only_tags_that_it_knows(start: Any, a1111: Any) -> None:
    metadata = {"ss_base_model_version": "sd_v1"}
    line = {"name": "Style", "alias": "Style", "path": "/x", "metadata": metadata}
    async with start(a1111.address) as up:
        answer = await up.http.post(TXT2IMG, json={"prompt": "a<lora:style:1>"})
        assert answer.status_code == 422
        assert "unknown LoRA 'style'" in answer.json()["detail"]
        assert a1111.bodies == []
        a1111.more["/sdapi/v1/loras"] = [line]
        up.gateway._reread = 0.0  # as if a second had passed
        answer = await up.http.post(TXT2IMG, json={"prompt": "a<lora:style:1>"})
        assert answer.status_code == 200, answer.text
        assert a1111.bodies[0]["prompt"] == "a<lora:Style:1>"
        assert (await up.http.get("/sdapi/v1/loras")).json() == [line]


async def test_a_request_goes_to_a_back_end_that_has_its_lora(start: Any, a1111: Any, second_a1111: Any) -> None:
    second_a1111.more["/sdapi/v1/loras"] = [{"name": "style", "alias": "style", "path": "", "metadata": {}}]
    async with start(a1111.address, second_a1111.address) as up:
        for _ in range(3):
            assert (await up.http.post(TXT2IMG, json={"prompt": "a<lora:style:1>"})).status_code == 200
        assert (len(a1111.bodies), len(second_a1111.bodies)) == (0, 3)


async def test_a_list_that_is_none_is_told(start: Any, a1111: Any) -> None:
    a1111.more["/sdapi/v1/loras"] = {"detail": "?"}
    async with start(a1111.address) as up:
        assert (await up.http.post(TXT2IMG, json={})).status_code == 503
        assert "loras are not those of A1111" in (await up.http.get("/")).text
