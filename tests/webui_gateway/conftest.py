"""Fixtures of the gateway tests: two real engines on the tiny model, and A1111 servers with its silent habits.

The gateway itself is real: gRPC and uvicorn in the test's own event loop, on free ports.
"""

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import secrets
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
import uvicorn
from artifacts.store import ObjectStore, StoreConfig
from chassis.client import channel
from chassis.config import ServerConfig
from chassis.testing import running
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from PIL import Image, ImageDraw
from webui_gateway.__main__ import HttpServer
from webui_gateway.config import GatewayConfig
from webui_gateway.gateway import Gateway
from webui_gateway.http_api import create_app
from webui_gateway.jobs import Pace
from webui_gateway.server import build

TOKEN = "gateway-test-token"
ENGINE_TOKEN = "engine-test-token"
MAX_BODY_BYTES = 1024**2
QUICK = Pace(poll_seconds=0.02, retry_seconds=0.02, lost_seconds=60, patience_seconds=60)


def drawing(size: int = 64) -> bytes:
    """PNG of a white square on blue, with edges that canny finds."""
    image = Image.new("RGB", (size, size), (20, 40, 160))
    ImageDraw.Draw(image).rectangle((size // 4, size // 4, size * 3 // 4, size * 3 // 4), fill="white")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def picture() -> bytes:
    return drawing()


@pytest.fixture(scope="session")
def shared_store(store_config: StoreConfig) -> Iterator[ObjectStore]:
    """The bucket of engines and gateways."""
    fresh = ObjectStore(replace(store_config, bucket=f"gateway-{secrets.token_hex(6)}"))
    fresh.ensure_bucket()
    yield fresh
    fresh.delete_bucket()


@pytest.fixture(scope="session")
def folders(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of models: "a" has sd15-tiny, "b" also only-b; "nets" a canny control net for them."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("a", "b", "nets")}
    for target in (made["a"] / "sd15-tiny", made["b"] / "sd15-tiny", made["b"] / "only-b"):
        shutil.copytree(tiny_models / "sd15-tiny", target)
    shutil.copytree(tiny_models / "controlnet-canny-tiny", made["nets"] / "canny-tiny")
    return made


@contextlib.contextmanager
def engine(models: Path, nets: Path, cache: Path, store: StoreConfig) -> Iterator[str]:
    """A real engine in a thread; its URL once it is ready."""
    from webui_engine.config import EngineConfig
    from webui_engine.server import Server

    config = EngineConfig(
        store=store,
        server=ServerConfig(token=ENGINE_TOKEN, drain_seconds=1),
        models=str(models),
        controlnets=str(nets),
        cache_dir=str(cache),
        device="cpu",
        precision="fp32",
        default_model="sd15-tiny",
        listing_seconds=0,
    )
    server = Server(config)
    server.bind()
    thread = threading.Thread(target=server.run)
    thread.start()
    url = f"http://{server.endpoints['http']}"
    try:
        httpx.get(f"{url}/healthz", timeout=600).raise_for_status()
        assert server.engine is not None
        server.engine.worker.submit("after start", lambda: None).future.result(timeout=600)
        yield url
    finally:
        server.stop()
        thread.join()


@pytest.fixture(scope="session")
def engines(
    folders: dict[str, Path], shared_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """URLs of two ready engines: the first has sd15-tiny, the second also only-b and, like it, the bucket."""
    with contextlib.ExitStack() as stack:
        urls = [
            stack.enter_context(
                engine(folders[name], folders["nets"], tmp_path_factory.mktemp("cache"), shared_store.config)
            )
            for name in ("a", "b")
        ]
        yield urls[0], urls[1]


@dataclass(frozen=True)
class Running:
    """A gateway that serves: clients with the token, and its inside."""

    gateway: Gateway
    http: httpx.AsyncClient
    grpc: grpc.aio.Channel
    url: str


Start = Callable[..., contextlib.AbstractAsyncContextManager[Running]]


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """The application on a free port, by uvicorn."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest.fixture
def start(folders: dict[str, Path], shared_store: ObjectStore) -> Start:
    """Starts a gateway in front of the given URLs."""

    @contextlib.asynccontextmanager
    async def begin(*urls: str, **settings: Any) -> AsyncIterator[Running]:
        config = GatewayConfig(
            server=ServerConfig(token=TOKEN),
            store=shared_store.config,
            engines=",".join(urls),
            engine_token=ENGINE_TOKEN,
            models=str(folders["a"]),
            controlnets=str(folders["nets"]),
            **settings,
        )
        server, gateway = build(config)
        gateway.jobs.pace = QUICK
        await gateway.start()
        try:
            async with (
                running(server) as target,
                serving(create_app(gateway, TOKEN, MAX_BODY_BYTES)) as url,
                httpx.AsyncClient(base_url=url, auth=("any", TOKEN), timeout=120) as http,
                channel(target, TOKEN) as wire,
            ):
                yield Running(gateway, http, wire, url)
        finally:
            await gateway.close()

    return begin


@pytest_asyncio.fixture
async def up(start: Start, engines: tuple[str, str]) -> AsyncIterator[Running]:
    """A gateway in front of both engines."""
    async with start(*engines) as found:
        yield found


@dataclass
class A1111:
    """A web UI with the habits of the real one: unknown names are replaced silently, letter case counts.

    hold: while cleared, drawing waits for it or an interrupt. break_next: so many generations lose their connection.
    hashed: it has computed the hashes of its checkpoints. gone: checkpoints that are listed still, without their files.
    task: what it says that it does while it draws. more: answers of routes that only some servers have, by path.
    """

    url: str = ""
    checkpoints: tuple[str, ...] = ("v1-5", "other")
    hashed: bool = False
    samplers: tuple[str, ...] = ("DPM++ 2M", "Euler a")
    scripts: tuple[str, ...] = ("x/y/z plot",)
    gone: tuple[str, ...] = ()
    task: str = "scripts_txt2img"
    more: dict[str, Any] = field(default_factory=dict)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    drawing: asyncio.Event = field(default_factory=asyncio.Event)
    break_next: int = 0
    status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    num_interrupts: int = 0

    @property
    def address(self) -> str:
        """Its URL with its user and password."""
        return self.url.replace("://", "://user:pa%3Ass@")

    def title(self, name: str) -> str:
        """What it calls a checkpoint."""
        return f"{name}.safetensors [{_hash(name)}]" if self.hashed else f"{name}.safetensors"

    async def draw(self, body: dict[str, Any]) -> dict[str, Any]:
        """txt2img as A1111 answers it."""
        self.bodies.append(body)
        self.stop.clear()
        self.drawing.set()
        waits = [asyncio.ensure_future(event.wait()) for event in (self.hold, self.stop)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self.drawing.clear()
        wanted = (body.get("override_settings") or {}).get("sd_model_checkpoint")
        names = {self.title(name): name for name in self.checkpoints if name not in self.gone}
        model = wanted if wanted in names else next(iter(names))
        sampler = body.get("sampler_name") if body.get("sampler_name") in self.samplers else self.samplers[0]
        count = body.get("batch_size", 1) * body.get("n_iter", 1)
        seeds = [body["seed"] + number for number in range(count)]
        info = {
            "all_seeds": seeds,
            "infotexts": [f"Seed: {seed}, Sampler: {sampler}, Model: {model}" for seed in seeds],
            "index_of_first_image": 0,
            "sd_model_hash": _hash(names[model]) if self.hashed else None,
        }
        image = base64.b64encode(drawing()).decode()
        return {"images": [image] * count, "parameters": {}, "info": json.dumps(info)}


def a1111_app(state: A1111) -> FastAPI:
    """Its routes; the API asks for user:pa:ss, as --api-auth does."""
    app = FastAPI()

    @app.middleware("http")
    async def check(request: Request, call_next: Any) -> Any:
        expected = "Basic " + base64.b64encode(b"user:pa:ss").decode()
        if request.headers.get("authorization") != expected:
            return JSONResponse({"detail": "Incorrect username or password"}, 401)
        return await call_next(request)

    _add_lists(app, state)
    _add_drawing(app, state)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def others(request: Request) -> Any:
        if request.url.path not in state.more:
            raise HTTPException(404, "Not Found")
        return state.more[request.url.path]

    return app


def _add_lists(app: FastAPI, state: A1111) -> None:
    lists: dict[str, Any] = {
        "schedulers": [{"name": "automatic", "label": "Automatic"}, {"name": "karras", "label": "Karras"}],
        "cmd-flags": {"api_auth": "user:pa:ss", "no_half": False, "precision": "autocast"},
        "memory": {"ram": {}, "cuda": {"system": {}}},
        "options": state.options,
    }
    for name, value in lists.items():
        app.add_api_route(f"/sdapi/v1/{name}", lambda value=value: value, methods=["GET"])

    @app.get("/sdapi/v1/samplers")
    async def samplers() -> list[dict[str, Any]]:
        short = {"DPM++ 2M": ["k_dpmpp_2m"], "Euler a": ["k_euler_a"]}
        return [{"name": name, "aliases": short.get(name, []), "options": {}} for name in state.samplers]

    @app.get("/sdapi/v1/scripts")
    async def scripts() -> dict[str, list[str]]:
        return {"txt2img": list(state.scripts), "img2img": ["loopback"]}

    @app.get("/sdapi/v1/sd-models")
    async def models() -> list[dict[str, Any]]:
        return [
            {"title": state.title(name), "model_name": name, "sha256": None, "filename": f"C:\\sd\\{name}.ckpt"}
            for name in state.checkpoints
        ]

    @app.post("/sdapi/v1/refresh-checkpoints")
    async def refresh() -> None:
        return None

    @app.post("/sdapi/v1/options")
    async def set_options(request: Request) -> None:
        state.options |= await request.json()


def _add_drawing(app: FastAPI, state: A1111) -> None:
    @app.get("/sdapi/v1/progress")
    async def progress() -> dict[str, Any]:
        share, job = (0.5, state.task) if state.drawing.is_set() else (0.0, "")
        return {"progress": share, "eta_relative": 1.5, "state": {"job": job, "sampling_step": 1, "sampling_steps": 2}}

    @app.post("/sdapi/v1/interrupt")
    async def interrupt() -> dict[str, Any]:
        state.num_interrupts += 1
        state.stop.set()
        return {}

    @app.post("/sdapi/v1/txt2img")
    async def txt2img(request: Request) -> Any:
        answer = await state.draw(await request.json())
        if state.break_next:
            state.break_next -= 1
            return _Torn()
        if state.status != 200:
            raise HTTPException(state.status, "it broke")
        return answer


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:10]


class _Torn(JSONResponse):
    """An answer whose connection is lost in the middle."""

    def __init__(self) -> None:
        super().__init__({})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": False})


@pytest_asyncio.fixture
async def a1111() -> AsyncIterator[A1111]:
    """One A1111 server, drawing at once."""
    async with _a1111() as state:
        yield state


@pytest_asyncio.fixture
async def second_a1111() -> AsyncIterator[A1111]:
    """Another one."""
    async with _a1111() as state:
        yield state


@contextlib.asynccontextmanager
async def _a1111() -> AsyncIterator[A1111]:
    state = A1111()
    state.hold.set()
    async with serving(a1111_app(state)) as url:
        state.url = url
        yield state
        state.hold.set()
