"""Runs the gateway, gRPC and HTTP: `python -m webui_gateway`, configured by the environment; `--help` lists the settings."""

import asyncio
import contextlib
import json
import socket
import sys
from pathlib import Path

import uvicorn
from chassis import program, server

from webui_gateway.config import GatewayConfig
from webui_gateway.http_api import create_app
from webui_gateway.server import build

_READY_POLL_SECONDS = 0.5


async def serve(settings: GatewayConfig) -> int:
    """Serve until a signal; returns the exit code."""
    service, gateway = build(settings)
    app = create_app(gateway, settings.server.token if settings.server.auth else "")
    listener = _listen(settings)
    http = _HttpServer(
        uvicorn.Config(app, log_config=None, lifespan="off", access_log=False, timeout_graceful_shutdown=20)
    )
    serving = asyncio.create_task(http.serve(sockets=[listener]))

    async def load() -> None:
        """Ready as soon as one back end answers."""
        await gateway.start()
        _announce_http(settings, listener)
        while not any(backend.alive for backend in gateway.backends):
            await gateway.refresh(force=True)
            await asyncio.sleep(_READY_POLL_SECONDS)

    async def close() -> None:
        http.should_exit = True
        await serving
        await gateway.close()

    return await server.run(service, load=load, close=close)


class _HttpServer(uvicorn.Server):
    """Leaves signals to the gRPC server, which drains both."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _listen(settings: GatewayConfig) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.server.host, settings.http_port))
    except OSError as error:
        raise SystemExit(
            f"cannot listen on {settings.server.host}:{settings.http_port} (DARKROOM_HTTP_PORT): {error}"
        ) from error
    return listener


def _announce_http(settings: GatewayConfig, listener: socket.socket) -> None:
    """Add the HTTP port to the endpoint file that the gRPC server wrote."""
    if not settings.server.endpoint_file:
        return
    path = Path(settings.server.endpoint_file)
    host, port = listener.getsockname()[:2]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"http": f"{host}:{port}"}))


def main() -> int:
    """Read the configuration and serve."""
    return asyncio.run(serve(program.read_config(GatewayConfig, __doc__ or "")))


if __name__ == "__main__":
    sys.exit(main())
