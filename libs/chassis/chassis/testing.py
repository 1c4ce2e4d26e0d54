"""The server of a service, in-process, for tests: the same object that `server.run` runs, on free ports."""

import contextlib
from collections.abc import AsyncIterator

from chassis.server import Server


@contextlib.asynccontextmanager
async def running(server: Server, serving: bool = True) -> AsyncIterator[str]:
    """Start the server and give its target ("host:port"); stop it at the end, cancelling what is still in flight.

    serving: report SERVING at once, as after a finished load.
    """
    await server.start()
    try:
        if serving:
            await server.set_serving()
        yield server.target
    finally:
        await server.stop(0)
