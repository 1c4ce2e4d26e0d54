"""`darkroom smoke` against a real captioner and a real engine, and against what is neither."""

import base64
import http.server
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from artifacts.store import StoreConfig
from darkroom_cli.__main__ import app
from darkroom_cli.launcher import ports, services
from darkroom_cli.launcher.child import Child
from PIL import Image, ImageColor
from typer.testing import CliRunner

TOKEN = "smoke-test-token"
NOBODY = "127.0.0.1:9"
PORT_SECONDS = 120
PATIENCE = ("--timeout", "240")


@dataclass(frozen=True)
class Addresses:
    captioner: str
    engine: str


@pytest.fixture(scope="module")
def running(store_config: StoreConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """A captioner and an engine on the tiny models, in processes of their own, still loading."""
    data = tmp_path_factory.mktemp("smoke")
    children: list[Child] = []
    try:
        with ports.reserved():
            chosen = ports.choose(services.HOST)
            all_services = services.children(data, store_config, chosen, TOKEN)
            children += [child for child in all_services if child.name in ("captioner", "engine")]
            for child in children:
                child.start()
            _wait_open(children)
        yield Addresses(f"{services.HOST}:{chosen['captioner']}", f"http://{services.HOST}:{chosen['engine']}")
    finally:
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.wait_stopped()


def _wait_open(children: list[Child]) -> None:
    """Until the ports are taken, which is long before the models are loaded."""
    deadline = time.monotonic() + PORT_SECONDS
    while not all(child.endpoint_file.exists() for child in children):
        assert time.monotonic() < deadline, [child.log_file.read_text()[-2000:] for child in children]
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_TOKEN", TOKEN)


def smoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ("smoke", *arguments))


def test_both_answer(running: Addresses) -> None:
    done = smoke("--captioner", running.captioner, "--engine", running.engine, *PATIENCE, "--json")
    assert done.exit_code == 0, done.output
    captioner, engine = json.loads(done.stdout)
    assert "red" in captioner["answer"]
    assert "circle" in captioner["answer"]
    assert "64 x 64 pixels" in engine["answer"]


@pytest.mark.parametrize("service", ["captioner", "engine"])
def test_a_wrong_token_is_told(running: Addresses, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_TOKEN", "another")
    address = getattr(running, service)
    done = smoke(f"--{service}", address, *PATIENCE)
    assert done.exit_code == 1
    assert f"error: {service} {address}" in done.stderr
    assert "oken" in done.stderr


@pytest.mark.parametrize("arguments", [("--captioner", NOBODY), ("--engine", f"http://{NOBODY}")])
def test_nobody_there_is_told(arguments: tuple[str, str]) -> None:
    done = smoke(*arguments, "--timeout", "1")
    assert done.exit_code == 1
    assert arguments[1] in done.stderr


def test_nothing_to_ask_is_told() -> None:
    done = smoke()
    assert done.exit_code == 1
    assert "--captioner host:port" in done.stderr


def test_an_address_that_is_no_url_is_told() -> None:
    done = smoke("--engine", "engine:7861")
    assert done.exit_code == 1
    assert "--engine is 'engine:7861'; write it as http://host:port" in done.stderr


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """Starts a server that gives these answers, (status, body), the last one for ever; returns its URL."""
    servers = []

    def start(*answers: tuple[int, bytes]) -> str:
        left = list(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def png(*colours: str) -> str:
    """A picture of one row of pixels, as base64."""
    image, file = Image.new("RGB", (len(colours), 1)), io.BytesIO()
    for place, colour in enumerate(colours):
        image.putpixel((place, 0), ImageColor.getrgb(colour))
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"<html>", "its answer is no JSON"),
        (b'{"images": []}', "asked for one picture, it answered {'images': []}"),
        (b'{"images": ["AAAA"]}', "what it answered is no picture"),
        (json.dumps({"images": [png("black", "black")]}).encode(), "the picture is of one colour only, (0, 0, 0)"),
    ],
    ids=["no JSON", "no picture", "broken picture", "black picture"],
)
def test_an_answer_that_cannot_be_right_is_told(answering: Callable[..., str], answer: bytes, said: str) -> None:
    done = smoke("--engine", answering((200, answer)))
    assert done.exit_code == 1
    assert said in done.stderr


def test_an_engine_that_still_loads_is_waited_for(answering: Callable[..., str]) -> None:
    picture = json.dumps({"images": [png("red", "blue", "red")]}).encode()
    done = smoke("--engine", answering((503, b"loading"), (200, picture)))
    assert done.exit_code == 0, done.output
    assert "3 x 1 pixels, 2 colours" in done.stdout
    assert "waiting: engine" in done.stderr
    assert "HTTP 503: loading" in done.stderr
