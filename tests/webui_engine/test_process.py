"""`python -m webui_engine` as a process: the port before torch, readiness, draining, and a wrong configuration."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from chassis.config import ServerConfig
from webui_engine.config import EngineConfig
from webui_engine.server import Server

from .conftest import TOKEN, refused


def environment(**values: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    return {**kept, "DARKROOM_TOKEN": TOKEN, **values}


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """An engine without models, and its address; the file appears as soon as the port is open."""
    file = tmp_path / "endpoint.json"
    settings = {"DARKROOM_ENDPOINT_FILE": str(file), "DARKROOM_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "webui_engine"]
    child = subprocess.Popen(command, env=environment(**settings), stderr=subprocess.PIPE, text=True)
    try:
        while not file.exists():
            assert child.poll() is None, child.stderr and child.stderr.read()
        yield child, f"http://{json.loads(file.read_text())['http']}"
    finally:
        child.kill()
        child.wait()


def test_the_port_opens_before_torch_is_there(process: tuple["subprocess.Popen[str]", str]) -> None:
    child, url = process
    assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
    ready = httpx.get(f"{url}/readyz", timeout=60)
    assert (ready.status_code, ready.json()) == (503, {"status": "starting"})
    assert httpx.get(f"{url}/sdapi/v1/samplers", timeout=60).status_code == 401
    early = httpx.get(f"{url}/sdapi/v1/samplers", auth=("u", TOKEN), timeout=60)
    refused(early, 503, "starting")
    assert int(early.headers["retry-after"]) > 0
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=60) == 0


def test_a_generation_that_outlasts_the_drain_is_told_to_try_again(tiny_models: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "sd15-tiny").symlink_to(tiny_models / "sd15-tiny")
    config = EngineConfig(
        server=ServerConfig(token=TOKEN, drain_seconds=1), models=str(models), cache_dir=str(tmp_path), device="cpu"
    )
    server = Server(config)
    server.bind()
    running = threading.Thread(target=server.run)
    running.start()
    with (
        httpx.Client(base_url=f"http://{server.endpoints['http']}", auth=("u", TOKEN), timeout=60) as client,
        ThreadPoolExecutor() as pool,
    ):
        while client.get("/readyz").status_code != 200:
            time.sleep(0.1)
        drawing = pool.submit(client.post, "/sdapi/v1/txt2img", json={"prompt": "a", "steps": 150, "n_iter": 60})
        while not client.get("/sdapi/v1/progress").json()["state"]["job"]:
            time.sleep(0.05)
        server.stop()
        refused(drawing.result(), 503, "stopping")
    running.join(timeout=30)
    assert not running.is_alive()


def test_all_mistakes_of_the_configuration_are_told_at_once() -> None:
    settings = environment(DARKROOM_MODELS_IN_MEMORY="0", DARKROOM_DEVICE="tpu", DARKROOM_S3_ACCESS_KEY="key")
    done = subprocess.run(
        [sys.executable, "-m", "webui_engine"], env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    for name in ("DARKROOM_MODELS_IN_MEMORY", "DARKROOM_DEVICE", "DARKROOM_S3_ENDPOINT"):
        assert name in done.stderr


def test_help_lists_the_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "webui_engine", "--help"], env=environment(), capture_output=True, text=True, check=True
    )
    for name in ("DARKROOM_MODELS", "DARKROOM_CONTROLNETS", "DARKROOM_TOKEN", "DARKROOM_S3_ENDPOINT"):
        assert name in done.stdout
