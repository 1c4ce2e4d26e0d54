"""Runs the gateway, gRPC and HTTP: `python -m webui_gateway`, configured by the environment; `--help` lists the settings."""

import asyncio
import contextlib
import logging
import math
import socket
import sys
from collections.abc import Iterator
from typing import Final

import uvicorn
from chassis import program, server
from chassis.config import ServerConfig
from chassis.endpoint import EndpointFile, join, to_dial

from webui_gateway.config import GatewayConfig
from webui_gateway.gateway import Gateway
from webui_gateway.server import build

_READY_POLL_SECONDS: Final = 0.5


class HttpServer(uvicorn.Server):
    """uvicorn that leaves signals to the gRPC server, which drains both."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class HttpEdge:
    """The A1111 API: its port listens at once, early requests wait in it until `start`."""

    def __init__(self, settings: GatewayConfig, gateway: Gateway) -> None:
        self._settings = settings
        self._gateway = gateway
        self._listener = _listen(settings.server.host, settings.http_port)
        self._server: HttpServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self._drained_at: float | None = None  # by the clock of the event loop

    def start(self) -> None:
        """Serve, and tell the port in the endpoint file that the gRPC server wrote."""
        from webui_gateway.http_api import create_app  # FastAPI takes a third of the start; the gRPC port is open first

        config = self._settings.server
        app = create_app(self._gateway, config.token if config.auth else None, config.max_message_bytes)
        self._server = HttpServer(_http_options(config, app))
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        target = to_dial(config.host, self._listener.getsockname()[1])
        EndpointFile(config.endpoint_file).add({"http": target})

    def drain(self) -> None:
        """Take no new connection, let open requests end."""
        if self._drained_at is None:
            self._drained_at = asyncio.get_running_loop().time() + self._settings.server.drain_seconds
        if self._server is not None:
            self._server.should_exit = True

    async def close(self) -> None:
        """Drain and wait for the end. Generations that outlast the drain are answered with 503, as any that may be repeated."""
        self.drain()
        if self._serving is not None and self._drained_at is not None:
            await asyncio.wait((self._serving,), timeout=self._drained_at - asyncio.get_running_loop().time())
            await self._gateway.jobs.stop()
            await self._serving
        self._listener.close()


async def serve(settings: GatewayConfig) -> int:
    """Serve until a signal; returns the exit code."""
    service, gateway = build(settings)
    http = HttpEdge(settings, gateway)

    async def load() -> None:
        """Ready as soon as one back end answers."""
        http.start()
        await gateway.start()
        while not gateway.num_alive:
            await gateway.refresh(force=True)
            await asyncio.sleep(_READY_POLL_SECONDS)

    async def close() -> None:
        await http.close()
        await gateway.close()

    service.on_stop = http.drain
    return await server.run(service, load=load, close=close)


def _http_options(config: ServerConfig, app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        lifespan="off",
        access_log=False,
        # It cuts without an answer, so after those that the queue gives at the end of the drain.
        timeout_graceful_shutdown=math.ceil(config.drain_seconds + server.INTERRUPT_SECONDS),
        ssl_certfile=config.tls_certificate_file or None,
        ssl_keyfile=config.tls_key_file or None,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=128)
    except OSError as error:
        raise SystemExit(f"cannot listen on {join(host, port)} (DARKROOM_HOST, DARKROOM_HTTP_PORT): {error}") from error


def main() -> int:
    """Read the configuration and serve."""
    settings = program.read_config(GatewayConfig, __doc__ or "")
    # One line for every look at a back end's progress would bury the rest.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
