"""`python -m webui_gateway` as a process: ports, readiness, metrics, SIGTERM."""

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
from artifacts.store import ObjectStore
from chassis.client import channel
from darkroom.webui.v1.generation_pb2 import GenerateRequest
from darkroom.webui.v1.generation_pb2_grpc import GenerationServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

TOKEN = "process-token"


def environment(store: ObjectStore, address: str, endpoint_file: Path) -> dict[str, str]:
    config = store.config
    return {
        **os.environ,
        "DARKROOM_TOKEN": TOKEN,
        "DARKROOM_ENDPOINT_FILE": str(endpoint_file),
        "DARKROOM_HTTP_PORT": "0",
        "DARKROOM_ENGINES": address,
        "DARKROOM_S3_ENDPOINT": config.endpoint,
        "DARKROOM_S3_ACCESS_KEY": config.access_key,
        "DARKROOM_S3_SECRET_KEY": config.secret_key,
        "DARKROOM_S3_BUCKET": config.bucket,
    }


async def endpoints(process: asyncio.subprocess.Process, path: Path) -> dict[str, str]:
    """What the endpoint file says once all three ports are in it; fails if the process ends before."""
    while process.returncode is None:
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        if "http" in found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"ended with {process.returncode}")


async def test_it_serves_and_drains(a1111: Any, shared_store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "run" / "gateway.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "webui_gateway", env=environment(shared_store, a1111.address, path)
    )
    try:
        found = await endpoints(process, path)
        async with channel(found["grpc"], TOKEN) as wire:
            health = health_pb2_grpc.HealthStub(wire)
            async for answer in health.Watch(health_pb2.HealthCheckRequest()):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    break
        async with httpx.AsyncClient(base_url=f"http://{found['http']}", auth=("me", TOKEN), timeout=60) as http:
            assert (await http.get("/readyz")).status_code == 200
            assert (await http.post("/sdapi/v1/txt2img", json={})).status_code == 200
            metrics = (await http.get(f"http://{found['metrics']}/metrics")).text
            for line in (
                r"darkroom_generation_queue_length 0\.0",
                r'darkroom_generations_total\{state="SUCCEEDED"\} 1\.0',
                r"darkroom_generation_seconds_count 1\.0",
                r"darkroom_backends_alive 1\.0",
                # There before the first refusal, which is an increase then: it wakes engines that are scaled to zero.
                r'darkroom_grpc_failures_total\{method="Generate",reason="NO_BACKEND",service="[\w.]+"\} 0\.0',
                r"process_resident_memory_bytes \d",
            ):
                assert re.search(line, metrics), line
            a1111.hold.clear()
            last = asyncio.create_task(http.post("/sdapi/v1/txt2img", json={}))
            await a1111.drawing.wait()
            process.send_signal(signal.SIGTERM)
            while path.exists() and (await _opens(found["http"])):
                await asyncio.sleep(0.05)
            a1111.hold.set()
            assert (await last).status_code == 200, "what runs is finished"
        assert await process.wait() == 0
        assert not path.exists()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_what_outlasts_the_drain_is_told_to_try_again(
    a1111: Any, shared_store: ObjectStore, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.json"
    settings = environment(shared_store, a1111.address, path) | {"DARKROOM_DRAIN_SECONDS": "1"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "webui_gateway", env=settings)
    try:
        found = await endpoints(process, path)
        async with (
            channel(found["grpc"], TOKEN) as wire,
            httpx.AsyncClient(base_url=f"http://{found['http']}", auth=("me", TOKEN), timeout=60) as http,
        ):
            while (await http.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
            a1111.hold.clear()
            posted = asyncio.create_task(http.post("/sdapi/v1/txt2img", json={}))
            await a1111.drawing.wait()
            drawing = GenerationServiceStub(wire).Generate(GenerateRequest(model="models/v1-5"))
            await drawing.read()
            process.send_signal(signal.SIGTERM)
            code, answer = await drawing.code(), await posted
        assert await process.wait() == 0
    finally:
        a1111.hold.set()
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


async def _opens(address: str) -> bool:
    """Whether the port takes connections."""
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


async def test_all_mistakes_of_the_configuration_at_once(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "webui_gateway", stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "DARKROOM_ENGINES": "ftp://me:secret@host"},
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == 64
    for name in ("DARKROOM_TOKEN", "DARKROOM_S3_ENDPOINT"):
        assert name in errors.decode()
    assert "secret@" not in errors.decode()
