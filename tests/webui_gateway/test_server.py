"""The gateway over gRPC and HTTP in front of real engines and a real bucket."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from darkroom.webui.v1 import generation_pb2 as pb
from darkroom.webui.v1 import registry_pb2 as registry
from darkroom.webui.v1.generation_pb2_grpc import GenerationServiceStub
from darkroom.webui.v1.registry_pb2_grpc import ControlNetServiceStub, ModelServiceStub
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

TXT2IMG = "/sdapi/v1/txt2img"
TINY = "models/sd15-tiny"


def image_of(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


async def generate(found: Any, **fields: Any) -> tuple[list[pb.GenerateResponse], pb.GenerationResult]:
    """All messages, and the result in the last one."""
    request = pb.GenerateRequest(**{"model": TINY, "steps": 2, "prompt": "a red circle", **fields})
    updates = [update async for update in GenerationServiceStub(found.grpc).Generate(request)]
    return updates, updates[-1].result


async def refused(found: Any, **fields: Any) -> tuple[grpc.StatusCode, str, str]:
    """Status, reason and message of a generation that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generate(found, **fields)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return caught.value.code(), info.reason, caught.value.details() or ""


async def test_pictures_with_their_seeds_and_infotexts(up: Any) -> None:
    updates, result = await generate(up, seed=7, num_images=2)
    assert len({update.id for update in updates}) == 1
    assert [image.seed for image in result.images] == [7, 8]
    for image in result.images:
        picture = image_of(image.data)
        assert picture.size == (64, 64)
        assert picture.info["parameters"] == image.infotext
        assert f"Seed: {image.seed}" in image.infotext
    assert result.model_title.startswith("sd15-tiny [")


async def test_one_seed_draws_one_picture_over_both_interfaces(up: Any) -> None:
    _, result = await generate(up, seed=7)
    body = {"prompt": "a red circle", "steps": 2, "seed": 7, "sampler_name": "DPM++ 2M"}
    answer = await up.http.post(TXT2IMG, json=body)
    assert answer.status_code == 200, answer.text
    again = image_of(base64.b64decode(answer.json()["images"][0]))
    assert again.tobytes() == image_of(result.images[0].data).tobytes()


async def test_img2img_starts_from_the_picture(up: Any, picture: bytes) -> None:
    _, near = await generate(up, seed=7, init_image=picture, denoising_strength=0.5)
    assert len(near.images) == 1
    assert "Denoising strength: 0.5" in near.images[0].infotext


async def test_a_control_unit_adds_no_picture(up: Any, picture: bytes) -> None:
    unit = pb.ControlUnit(control_net="canny", image=picture)
    _, result = await generate(up, seed=7, control_units=[unit])
    assert [image.seed for image in result.images] == [7]
    assert "canny-tiny" in result.images[0].infotext


async def test_batches_over_http(up: Any) -> None:
    answer = await up.http.post(TXT2IMG, json={"steps": 1, "seed": 3, "batch_size": 2, "n_iter": 2})
    info = json.loads(answer.json()["info"])
    assert info["all_seeds"] == [3, 4, 5, 6]
    assert len(answer.json()["images"]) == len(info["infotexts"]) == 4


CANNY = "control_v11p_sd15_canny"


@pytest.mark.parametrize(
    ("fields", "code", "reason", "parts"),
    [
        ({"model": "models/sd15-tny"}, "NOT_FOUND", "MODEL_UNKNOWN", ("sd15-tny", "sd15-tiny")),
        ({"model": "models/"}, "NOT_FOUND", "MODEL_UNKNOWN", ("''",)),
        ({"model": "models/sdxl"}, "FAILED_PRECONDITION", "MODEL_UNAVAILABLE", ("sdxl",)),
        ({"width_px": 512}, "FAILED_PRECONDITION", "RESOLUTION_UNSUPPORTED", ("sd15-tiny", "512x64")),
        ({"width_px": 100}, "FAILED_PRECONDITION", "RESOLUTION_UNSUPPORTED", ("sd15-tiny", "multiples of 8")),
        ({"precision": "bf16"}, "FAILED_PRECONDITION", "PRECISION_UNSUPPORTED", ("sd15-tiny", "bf16", "fp32")),
        ({"sampler": "Euler b"}, "INVALID_ARGUMENT", "SAMPLER_UNKNOWN", ("Euler b", "Euler a")),
        ({"scheduler": "Karas"}, "INVALID_ARGUMENT", "SCHEDULER_UNKNOWN", ("Karas", "Karras")),
        ({"control": CANNY}, "FAILED_PRECONDITION", "CONTROL_NET_MISMATCH", (CANNY, "sd15-tiny")),
        ({"control": "cany"}, "NOT_FOUND", "CONTROL_NET_UNKNOWN", ("cany", "canny")),
        ({"init_image": b"no picture"}, "INVALID_ARGUMENT", "BACKEND_REFUSED", ("init_images",)),
    ],
)
async def test_refusals_name_both_sides(
    up: Any, picture: bytes, fields: dict[str, Any], code: str, reason: str, parts: tuple[str, ...]
) -> None:
    if "control" in fields:
        fields = {"control_units": [pb.ControlUnit(control_net=fields["control"], image=picture)]}
    found, why, message = await refused(up, **fields)
    assert (found.name, why) == (code, reason)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ({"override_settings": {"sd_model_checkpoint": "sd15-tny"}}, ("sd15-tny", "sd15-tiny")),
        ({"width": 1024, "height": 1024}, ("sd15-tiny", "1024x1024")),
        ({"precision": "bf16"}, ("sd15-tiny", "bf16")),
        ({"alwayson_scripts": {"controlnet": {"args": [{"model": CANNY}]}}}, ("sd15-tiny", CANNY)),
        ({"steps": 0}, ("steps",)),
        ({"cfg_scale": "high"}, ("cfg_scale",)),
        ({"enable_hr": True}, ("enable_hr",)),
    ],
)
async def test_refusals_over_http(up: Any, body: dict[str, Any], parts: tuple[str, ...]) -> None:
    answer = await up.http.post(TXT2IMG, json={"steps": 1, **body})
    assert answer.status_code == 422
    for part in parts:
        assert part in answer.json()["detail"]


async def test_only_the_engine_that_has_the_model_draws(up: Any, engines: tuple[str, str]) -> None:
    body = {"steps": 1, "override_settings": {"sd_model_checkpoint": "only-b"}, "force_task_id": "for-b"}
    answer = await up.http.post(TXT2IMG, json=body)
    assert json.loads(answer.json()["info"])["sd_model_name"] == "only-b"
    assert (await up.http.get("/darkroom/v1/jobs/for-b")).json()["backend"] == engines[1]


async def test_two_engines_share_the_load(up: Any, engines: tuple[str, str]) -> None:
    bodies = [{"steps": 4, "force_task_id": f"shared-{number}"} for number in range(4)]
    answers = await asyncio.gather(*(up.http.post(TXT2IMG, json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    assert {job.backend for job in up.gateway.jobs.all()} == set(engines)


@pytest.fixture
def published(shared_store: ObjectStore, tiny_models: Path) -> Iterator[Any]:
    """Publishes sd15-tiny as a checkpoint."""
    checkpoints = Checkpoints(shared_store)
    made: list[str] = []

    def publish(name: str) -> None:
        fields = {
            "format": "diffusers",
            "architecture": "sd15",
            "kind": "dreambooth",
            "precision": "fp32",
            "prediction_type": "epsilon",
            "resolution": 64,
            "base_model": "sd15-tiny",
        }
        made.append(name)
        with checkpoints.begin(name, **fields) as writer:
            for path in sorted(p for p in (tiny_models / "sd15-tiny").rglob("*") if p.is_file()):
                writer.add_file(path.relative_to(tiny_models / "sd15-tiny").as_posix(), path)
            writer.publish()

    yield publish
    for name in made:
        checkpoints.delete(name)


async def test_a_published_checkpoint_appears_and_draws_without_a_restart(up: Any, published: Any) -> None:
    models = ModelServiceStub(up.grpc)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await models.GetModel(registry.GetModelRequest(name="models/toy-1"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    published("toy-1")
    listed = {line["model_name"]: line for line in (await up.http.get("/sdapi/v1/sd-models")).json()}
    assert listed["toy-1"]["title"] == f"toy-1 [{listed['toy-1']['hash']}]"
    model = await models.GetModel(registry.GetModelRequest(name="models/toy-1"))
    assert (model.architecture, model.prediction_type, model.native_resolution_px) == ("sd15", "epsilon", 64)
    assert (model.checkpoint, model.base_model, model.available) == ("checkpoints/toy-1", "sd15-tiny", True)
    assert (await up.http.get("/sdapi/v1/options")).json()["sd_model_checkpoint"].startswith("sd15-tiny ")
    _, result = await generate(up, model="models/toy-1", steps=1)
    assert "Model: toy-1" in result.images[0].infotext


async def test_models_are_paged_and_found_by_any_name(up: Any) -> None:
    stub = ModelServiceStub(up.grpc)
    names: list[str] = []
    token = ""
    while True:
        answer = await stub.ListModels(registry.ListModelsRequest(page_size=3, page_token=token))
        names += [model.name for model in answer.models]
        token = answer.next_page_token
        if not token:
            break
    assert names == sorted(set(names))
    assert {"models/sd15-tiny", "models/only-b", "models/flux-schnell", "models/sdxl"} <= set(names)
    tiny = await stub.GetModel(registry.GetModelRequest(name=TINY))
    for alias in (tiny.title, tiny.sha256, tiny.sha256[:10]):
        # only-b has the same weights, so a hash may mean either.
        found = await stub.GetModel(registry.GetModelRequest(name=f"models/{alias}"))
        assert found.sha256 == tiny.sha256
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListModels(registry.ListModelsRequest(page_token="?"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_control_nets_are_listed_and_resolved(up: Any) -> None:
    stub = ControlNetServiceStub(up.grpc)
    listed = {net.name: net for net in (await stub.ListControlNets(registry.ListControlNetsRequest())).control_nets}
    tiny = listed["controlNets/canny-tiny"]
    assert (tiny.kind, tiny.available, list(tiny.base_models)) == ("canny", True, ["sd15-tiny"])
    found = await stub.ResolveControlNet(registry.ResolveControlNetRequest(model=TINY, control_net="canny"))
    assert found.name == "controlNets/canny-tiny"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ResolveControlNet(registry.ResolveControlNetRequest(model=TINY, control_net=CANNY))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert CANNY in (caught.value.details() or "")


async def test_the_rest_of_the_api_answers(up: Any, picture: bytes) -> None:
    for path in ("samplers", "schedulers", "cmd-flags", "memory", "scripts", "loras", "progress", "upscalers"):
        answer = await up.http.get(f"/sdapi/v1/{path}")
        assert answer.status_code == 200, (path, answer.text)
    for path in ("refresh-checkpoints", "interrupt", "skip"):
        assert (await up.http.post(f"/sdapi/v1/{path}")).status_code == 200, path
    body = {"image": base64.b64encode(picture).decode()}
    assert (await up.http.post("/sdapi/v1/png-info", json=body)).json()["info"] == ""
    nets = (await up.http.get("/controlnet/model_list")).json()["model_list"]
    assert nets[0] == "None"
    assert nets[1].startswith("canny-tiny [")


async def test_the_page_shows_what_is_here(up: Any, engines: tuple[str, str]) -> None:
    page = await up.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for part in (*engines, "sd15-tiny", "only-b", 'href="/docs"'):
        assert part in page.text
