"""The gRPC server of a service: port open at once, health, reflection, TLS, metrics port, drain.

A service's `__main__` builds a `Server` from its configuration, its servicers and its error table, and gives it to
`run`; tests start the same object in-process (`chassis.testing.running`). What surrounds each call is in `interceptor.py` and `calls.py`.
"""

import asyncio
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from chassis import endpoint, logs
from chassis.calls import Ledger
from chassis.config import ConfigError, ServerConfig
from chassis.errors import ErrorTable
from chassis.interceptor import CallInterceptor
from chassis.metrics import CallMetrics, MetricsPort, process_registry

logger = logging.getLogger("chassis.server")

# Time for the last responses to reach the network, and the most that open health watches can delay a stop.
FLUSH_SECONDS: Final = 1.0
# Time for handlers to end once they are interrupted; with FLUSH_SECONDS well below the chart's shutdown.marginSeconds.
INTERRUPT_SECONDS: Final = 5.0
KEEPALIVE_MILLISECONDS: Final = 60_000


class StartError(Exception):
    """The server cannot start: a port is taken or a TLS file is unusable. The message names the setting."""


@dataclass(frozen=True)
class Binding:
    """A service and how its servicer is put on a server.

    service: full name, such as "darkroom.captioner.v1.CaptionerService"; its `_pb2` module must have been imported.
    register: usually `functools.partial(add_XServicer_to_server, servicer)`.
    """

    service: str
    register: Callable[[grpc.aio.Server], None]


class Server:
    """One gRPC server with its metrics port.

    Attributes: registry, where services put metrics of their own; after `start` also port, metrics_port and target
    ("host:port" as a client on this machine dials it).
    """

    def __init__(
        self,
        name: str,
        config: ServerConfig,
        bindings: Sequence[Binding],
        errors: ErrorTable,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """Raises ConfigError if the configuration contradicts itself and ValueError if a service is unknown."""
        if problems := tuple(config.problems()):
            raise ConfigError(problems)
        self.name = name
        self.config = config
        self.registry = registry or process_registry()
        self.port = 0
        self.metrics_port = 0
        self._bindings = tuple(bindings)
        self._metrics = CallMetrics(self.registry)
        self._serving = dict.fromkeys((binding.service for binding in bindings), False)
        self._ledger = Ledger(errors, self._metrics)
        self._health = health.aio.HealthServicer()
        self._endpoint = endpoint.EndpointFile(config.endpoint_file)
        self._server: grpc.aio.Server | None = None
        self._metrics_server: MetricsPort | None = None
        for service, method in self._methods():
            self._metrics.announce(service, method)

    @property
    def target(self) -> str:
        """Where a client on this machine reaches the server."""
        return endpoint.to_dial(self.config.host, self.port)

    def announce_failure(self, reason: str) -> None:
        """Show this reason of failures with zero for every method: a series that begins with its first failure never increased."""
        for service, method in self._methods():
            self._metrics.failures.labels(service, method, reason)

    async def start(self) -> None:
        """Open both ports, with every service NOT_SERVING. Raises StartError."""
        await self._publish_health()
        self._endpoint.remove()  # One that a killed predecessor left would send clients to a wrong port.
        token = self.config.token if self.config.auth else ""
        interceptor = CallInterceptor(self._ledger, token, self.config.max_message_bytes)
        server = grpc.aio.server(interceptors=(interceptor,), options=self._options())
        for binding in self._bindings:
            binding.register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self.config.reflection:
            names = (*self._serving, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        self._metrics_server = self._open_metrics_port()
        self.metrics_port = self._metrics_server.port
        try:
            self.port = self._open_port(server)
        except StartError:
            self._metrics_server.close()
            raise
        await server.start()
        self._server = server
        metrics_target = endpoint.to_dial(self.config.host, self.metrics_port)
        self._endpoint.write({"grpc": self.target, "metrics": metrics_target})
        where = {
            "grpc": endpoint.join(self.config.host, self.port),
            "metrics": endpoint.join(self.config.host, self.metrics_port),
        }
        logger.info("%s listens", self.name, extra=where)

    async def set_serving(self, serving: bool = True, service: str | None = None) -> None:
        """Set the health of one service (default: of all). The server as a whole serves while all services do.

        Without effect once `stop` has begun.
        """
        names = self._serving if service is None else (service,)
        for name in names:
            if name not in self._serving:
                raise ValueError(f"{self.name} has no service {name}; it has {', '.join(self._serving)}")
            self._serving[name] = serving
        await self._publish_health()

    async def stop(self, drain_seconds: float | None = None) -> None:
        """Report NOT_SERVING, refuse new calls with UNAVAILABLE, let calls finish for drain_seconds, then stop.

        Calls of methods named Watch… end with UNAVAILABLE at once: what they tell of goes on elsewhere or later. Calls that
        outlast the drain end the same way, so that their callers know to try again, before the connection is closed.
        drain_seconds: default from the configuration; 0 ends calls at once. A second call may cut a drain short.
        """
        seconds = self.config.drain_seconds if drain_seconds is None else drain_seconds
        logger.info("%s drains", self.name, extra={"num_calls": self._ledger.num_active})
        self._ledger.drain()
        for service in self._serving:
            self._serving[service] = False
            self._metrics.serving.labels(service).set(0)
        await self._health.enter_graceful_shutdown()
        grace: float | None = FLUSH_SECONDS
        if not await self._is_idle_within(seconds):
            extra = {"num_calls": self._ledger.num_active, "seconds": seconds}
            logger.warning("calls are ended after the drain", extra=extra)
            self._ledger.interrupt()
            if not await self._is_idle_within(INTERRUPT_SECONDS):
                logger.error("calls do not end and are cut off", extra={"num_calls": self._ledger.num_active})
                grace = None
        if self._server is not None:
            await self._server.stop(grace)
        metrics_server, self._metrics_server = self._metrics_server, None
        if metrics_server is not None:
            await asyncio.to_thread(metrics_server.close)
            self._endpoint.remove()
            logger.info("%s stopped", self.name)

    async def _is_idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ledger.wait_idle()
        except TimeoutError:
            return False
        return True

    async def _publish_health(self) -> None:
        statuses = health_pb2.HealthCheckResponse
        for service, serving in self._serving.items():
            await self._health.set(service, statuses.SERVING if serving else statuses.NOT_SERVING)
            if not self._ledger.is_draining:
                self._metrics.serving.labels(service).set(int(serving))
        overall = all(self._serving.values())
        await self._health.set(health.OVERALL_HEALTH, statuses.SERVING if overall else statuses.NOT_SERVING)

    def _methods(self) -> Iterator[tuple[str, str]]:
        """Service and name of every method."""
        pool = descriptor_pool.Default()
        for service in self._serving:
            try:
                methods = pool.FindServiceByName(service).methods
            except KeyError:
                raise ValueError(
                    f"no service {service!r} among the imported protos; give the full name and import its _pb2 module"
                ) from None
            yield from ((service, method.name) for method in methods)

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_receive_message_length", self.config.max_message_bytes),
            ("grpc.max_send_message_length", self.config.max_message_bytes),
            # Without this a second server on the same port would start and silently take half of the calls.
            ("grpc.so_reuseport", 0),
            # Notice clients that vanished without closing (laptop lid, pulled cable), so that their calls are
            # cancelled; and allow clients to do the same, which gRPC by default punishes as too many pings.
            ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),
            ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MILLISECONDS // 2),
        ]

    def _open_port(self, server: grpc.aio.Server) -> int:
        config = self.config
        address = endpoint.join(config.host, config.port)
        try:
            endpoint.probe(config.host, config.port)  # grpc itself says only that it failed, and writes to stderr.
            if config.tls_certificate_file:
                return server.add_secure_port(address, _tls_credentials(config))
            return server.add_insecure_port(address)
        except (OSError, RuntimeError) as error:
            raise StartError(f"cannot listen on {address} (DARKROOM_HOST, DARKROOM_PORT): {error}") from error

    def _open_metrics_port(self) -> MetricsPort:
        config = self.config
        try:
            return MetricsPort(config.host, config.metrics_port, self.registry)
        except OSError as error:
            address = endpoint.join(config.host, config.metrics_port)
            raise StartError(f"cannot serve metrics on {address} (DARKROOM_METRICS_PORT): {error}") from error


def _tls_credentials(config: ServerConfig) -> grpc.ServerCredentials:
    files = {
        "DARKROOM_TLS_CERTIFICATE_FILE": config.tls_certificate_file,
        "DARKROOM_TLS_KEY_FILE": config.tls_key_file,
    }
    contents = []
    for name, path in files.items():
        try:
            contents.append(Path(path).read_bytes())
        except OSError as error:
            raise StartError(f"{name}: cannot read {path}: {error.strerror}") from error
    try:
        # grpc would accept anything here and later say only that it cannot bind. No password: never ask on a terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            config.tls_certificate_file, config.tls_key_file, password=""
        )
    except ssl.SSLError as error:
        pair = " and ".join(f"{name}={path}" for name, path in files.items())
        raise StartError(f"{pair} are not a PEM certificate with its unencrypted key: {error}") from error
    certificate, key = contents
    return grpc.ssl_server_credentials([(key, certificate)])


Step = Callable[[], Awaitable[None]]


async def run(server: Server, load: Step | None = None, close: Step | None = None) -> int:
    """Run the server until SIGTERM or SIGINT, and return the exit code of the process.

    load runs behind the open port; when it is done, every service is SERVING. If it fails, the server stops and the
    code is 1. close runs last, whatever happened before. A second signal cuts the drain short.
    """
    logs.configure(server.config.log_level, server.config.log_format)
    stopping = asyncio.Event()
    _on_signals(server, stopping)
    try:
        await server.start()
        is_loaded = await _load(server, load, stopping)
        if is_loaded:
            await stopping.wait()
        await server.stop()
    except StartError as error:
        logger.error("%s cannot start: %s", server.name, error)
        return 1
    finally:
        if close is not None:
            await close()
    return 0 if is_loaded or stopping.is_set() else 1


async def _load(server: Server, load: Step | None, stopping: asyncio.Event) -> bool:
    """Run load and report readiness. False if it failed or a signal interrupted it."""
    if load is not None:
        loading = asyncio.ensure_future(load())
        signalled = asyncio.ensure_future(stopping.wait())
        await asyncio.wait((loading, signalled), return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if not loading.done():
            loading.cancel()
            await asyncio.wait((loading,))
            logger.info("%s was told to stop while it was loading", server.name)
            return False
        (error,) = await asyncio.gather(loading, return_exceptions=True)
        if error is not None:
            logger.critical("%s could not load", server.name, exc_info=error)
            return False
    await server.set_serving()
    logger.info("%s is ready", server.name)
    return True


def _on_signals(server: Server, stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    hurries: list[asyncio.Task[None]] = []  # keeps the tasks from being collected

    def on_signal() -> None:
        if stopping.is_set():
            hurries.append(loop.create_task(server.stop(0)))
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
