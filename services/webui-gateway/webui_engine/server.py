"""The process around the application: ports, signals, draining. `__main__` runs it, tests run it in a thread.

The HTTP port listens from `bind` on, before FastAPI and torch are imported; early requests wait in the socket.
"""

import asyncio
import contextlib
import math
import signal
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import uvicorn
from chassis.endpoint import to_dial
from chassis.metrics import MetricsPort, process_registry

from webui_engine.config import EngineConfig

if TYPE_CHECKING:
    from webui_engine.engine import Engine

_BACKLOG: Final = 128
_LOOK_SECONDS: Final = 0.05
# Time for the answers at the end of the drain.
_ANSWER_SECONDS: Final = 5


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: it would end the process with the signal instead of status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `Server`."""
        yield


class Server:
    """One engine on one HTTP port and one metrics port."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._stop = threading.Event()
        self.engine: Engine | None = None

    def bind(self) -> None:
        """Open the HTTP port. Raises OSError if it is taken."""
        server = self.config.server
        self._socket = socket.create_server((server.host, server.port), backlog=_BACKLOG)
        self._registry = process_registry()
        self._metrics_port = MetricsPort(server.host, server.metrics_port, self._registry)

    @property
    def endpoints(self) -> dict[str, str]:
        """Addresses for clients on this machine."""
        host = self.config.server.host
        port: int = self._socket.getsockname()[1]
        return {"http": to_dial(host, port), "metrics": to_dial(host, self._metrics_port.port)}

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or `stop`; then drain. 0, or 1 if the engine could not start."""
        from webui_engine.app import create_app
        from webui_engine.engine import Engine
        from webui_engine.metrics import Metrics

        metrics = Metrics(self._registry)
        engine = self.engine = Engine(self.config, metrics)
        metrics.waiting.set_function(lambda: len(engine.worker.pending()))
        metrics.ready.set_function(lambda: float(engine.state == "ready"))
        engine.start()
        server = self.config.server
        app = create_app(engine)
        options = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            # It cuts without an answer, so after those that are given at the end of the drain.
            timeout_graceful_shutdown=math.ceil(server.drain_seconds + _ANSWER_SECONDS),
            ssl_certfile=server.tls_certificate_file or None,
            ssl_keyfile=server.tls_key_file or None,
        )
        try:
            asyncio.run(self._serve(_Uvicorn(options), engine, app.state.drained))
            failed = engine.state == "failed"
        finally:
            engine.stop()
            self._metrics_port.close()
        return 1 if failed else 0

    def stop(self) -> None:
        """End `run`, from any thread."""
        self._stop.set()

    async def _serve(self, uvicorn_server: "_Uvicorn", engine: "Engine", drained: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop.set)
        serving = asyncio.create_task(uvicorn_server.serve(sockets=[self._socket]))
        while not (self._stop.is_set() or engine.state == "failed" or serving.done()):
            await asyncio.sleep(_LOOK_SECONDS)
        engine.drain()
        uvicorn_server.should_exit = True  # stop accepting, let open requests end
        await asyncio.wait({serving}, timeout=self.config.server.drain_seconds)
        drained.set()
        await serving
