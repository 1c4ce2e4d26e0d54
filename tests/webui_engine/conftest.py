"""Fixtures of the engine tests: one engine on the tiny model, served by a real uvicorn, with a bucket of its own."""

import base64
import io
import json
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from artifacts.store import ObjectStore, StoreConfig
from chassis.config import ServerConfig
from PIL import Image, ImageDraw
from webui_engine.config import EngineConfig
from webui_engine.engine import Engine
from webui_engine.server import Server

TOKEN = "engine-test-token"
MAX_IMAGE_PIXELS = 2048 * 2048
MAX_BODY_BYTES = 4 * 1024**2


@dataclass(frozen=True)
class Running:
    """An engine that serves. `models` and `loras` are its folders: files may be put there."""

    engine: Engine
    url: str
    metrics_url: str
    models: Path
    loras: Path
    store: ObjectStore


@pytest.fixture(scope="session")
def engine_store(store_config: StoreConfig) -> Iterator[ObjectStore]:
    """The bucket of the engine."""
    fresh = ObjectStore(replace(store_config, bucket=f"engine-{secrets.token_hex(6)}"))
    fresh.ensure_bucket()
    yield fresh
    fresh.delete_bucket()


@pytest.fixture(scope="session")
def model_folder(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with a copy of sd15-tiny."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_models / "sd15-tiny", folder / "sd15-tiny")
    return folder


@pytest.fixture(scope="session")
def controlnet_folder(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with canny-tiny, which fits sd15-tiny, and narrow-net, which does not. Its weights are random."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    folder = tmp_path_factory.mktemp("controlnets")
    unet = UNet2DConditionModel.from_pretrained(str(tiny_models / "sd15-tiny" / "unet"))
    net = ControlNetModel.from_unet(unet)
    for block in [*net.controlnet_down_blocks, net.controlnet_mid_block]:
        block.weight.data.normal_(std=0.2)  # fresh ones are zero and change nothing
    net.save_pretrained(str(folder / "canny-tiny"))
    narrow = {**net.config, "cross_attention_dim": 64}
    ControlNetModel.from_config(narrow).save_pretrained(str(folder / "narrow-net"))
    return folder


@pytest.fixture(scope="session")
def running(
    model_folder: Path, controlnet_folder: Path, engine_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """The engine of all tests; ready."""
    lora_folder = tmp_path_factory.mktemp("loras")
    config = EngineConfig(
        store=engine_store.config,
        server=ServerConfig(token=TOKEN, max_message_bytes=MAX_BODY_BYTES, drain_seconds=1),
        models=str(model_folder),
        controlnets=str(controlnet_folder),
        loras=str(lora_folder),
        cache_dir=str(tmp_path_factory.mktemp("cache")),
        device="cpu",
        listing_seconds=0,
        max_image_pixels=MAX_IMAGE_PIXELS,
    )
    server = Server(config)
    server.bind()
    thread = threading.Thread(target=server.run)
    thread.start()
    url = f"http://{server.endpoints['http']}"
    try:
        httpx.get(f"{url}/healthz", timeout=600).raise_for_status()  # waits in the open port until it is served
        assert server.engine is not None
        server.engine.worker.submit("after start", lambda: None).future.result(timeout=600)
        metrics_url = f"http://{server.endpoints['metrics']}/metrics"
        yield Running(server.engine, url, metrics_url, model_folder, lora_folder, engine_store)
    finally:
        server.stop()
        thread.join()


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    """A client with the token. The engine's options are put back after the test."""
    with httpx.Client(base_url=running.url, auth=("anyone", TOKEN), timeout=240) as client:
        yield client
        client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "sd15-tiny", "CLIP_stop_at_last_layers": 1})


@pytest.fixture
def txt2img(client: httpx.Client) -> Callable[..., dict[str, Any]]:
    """Draw with few steps; `info` comes decoded and `images` as RGB arrays."""

    def draw(**fields: Any) -> dict[str, Any]:
        body = {"prompt": "a red circle", "steps": 2, "seed": 1, **fields}
        return decoded(client.post("/sdapi/v1/txt2img", json=body))

    return draw


def decoded(response: httpx.Response) -> dict[str, Any]:
    """The reply of a generation with pictures as uint8 arrays (H, W, 3) and `info` as an object."""
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    reply["png"] = reply["images"]
    reply["images"] = [np.asarray(open_base64(text)) for text in reply["images"]]
    reply["info"] = json.loads(reply["info"])
    return reply


def open_base64(text: str) -> Image.Image:
    """Base64 to a loaded picture."""
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


def as_base64(image: Image.Image, format: str = "PNG", **arguments: Any) -> str:
    """A picture as base64 of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **arguments)
    return base64.b64encode(buffer.getvalue()).decode()


def drawing(size: int = 64) -> Image.Image:
    """A white square on blue, with edges that canny finds."""
    image = Image.new("RGB", (size, size), (20, 40, 160))
    ImageDraw.Draw(image).rectangle((size // 4, size // 4, size * 3 // 4, size * 3 // 4), fill="white")
    return image


def refused(response: httpx.Response, status: int, *parts: str) -> None:
    """The reply is A1111's error JSON with this status, and its detail holds all parts."""
    assert response.status_code == status, response.text
    reply = response.json()
    assert set(reply) == {"error", "detail", "body", "errors"}
    for part in parts:
        assert part in reply["detail"], reply["detail"]
