"""Runs the gateway, gRPC and HTTP: `python -m webui_gateway`, configured by the environment; `--help` lists the settings."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn
from chassis import program, server
from chassis.config import ServerConfig
from chassis.endpoint import join, to_dial

from webui_gateway.config import GatewayConfig
from webui_gateway.http_api import create_app
from webui_gateway.server import build

_READY_POLL_SECONDS: Final = 0.5


class HttpServer(uvicorn.Server):
    """uvicorn that leaves signals to the gRPC server, which drains both."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


async def serve(settings: GatewayConfig) -> int:
    """Serve until a signal; returns the exit code."""
    service, gateway = build(settings)
    token = settings.server.token if settings.server.auth else None
    listener = _listen(settings.server.host, settings.http_port)
    http = HttpServer(_http_options(settings.server, create_app(gateway, token, settings.server.max_message_bytes)))
    serving = asyncio.create_task(http.serve(sockets=[listener]))

    def drain_http() -> None:
        http.should_exit = True

    async def load() -> None:
        """Ready as soon as one back end answers."""
        _announce_http(settings.server, listener)
        await gateway.start()
        while not gateway.num_alive:
            await gateway.refresh(force=True)
            await asyncio.sleep(_READY_POLL_SECONDS)

    async def close() -> None:
        drain_http()
        await serving
        await gateway.close()

    service.on_stop = drain_http
    return await server.run(service, load=load, close=close)


def _http_options(config: ServerConfig, app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        lifespan="off",
        access_log=False,
        timeout_graceful_shutdown=int(config.drain_seconds),
        ssl_certfile=config.tls_certificate_file or None,
        ssl_keyfile=config.tls_key_file or None,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=128)
    except OSError as error:
        raise SystemExit(f"cannot listen on {join(host, port)} (DARKROOM_HOST, DARKROOM_HTTP_PORT): {error}") from error


def _announce_http(config: ServerConfig, listener: socket.socket) -> None:
    """Add the HTTP port to the endpoint file that the gRPC server wrote, in one step."""
    if not config.endpoint_file:
        return
    path = Path(config.endpoint_file)
    endpoints = json.loads(path.read_text()) | {"http": to_dial(config.host, listener.getsockname()[1])}
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(endpoints) + "\n")
    partial.replace(path)


def main() -> int:
    """Read the configuration and serve."""
    settings = program.read_config(GatewayConfig, __doc__ or "")
    # One line for every look at a back end's progress would bury the rest.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
