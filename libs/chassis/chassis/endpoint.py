"""Where a running server can be reached: addresses in words, and the file that tells the launcher.

Called by `server.py`; with port 0 the operating system chooses the ports, so nobody can know them beforehand.
"""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_ANY_ADDRESS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}


def join(host: str, port: int) -> str:
    """ "host:port", with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def to_dial(host: str, port: int) -> str:
    """ "host:port" for a client on this machine; a server on all addresses is reached by the loopback one."""
    return join(_ANY_ADDRESS.get(host, host), port)


def probe(host: str, port: int) -> None:
    """Raise OSError, with its reason, if nobody can listen there."""
    address = (host.strip("[]") or None, port)
    family, kind, protocol, _, place = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, kind, protocol) as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as grpc does: lingering ends do not count
        probe_socket.bind(place)


class EndpointFile:
    """A JSON file like {"grpc": "host:port", "metrics": "host:port"} that exists while the ports are open."""

    def __init__(self, path: str) -> None:
        """An empty path means that nobody wants the file."""
        self._path = Path(path) if path else None

    def write(self, targets: Mapping[str, str]) -> None:
        """Write the file in one step, so that a reader never sees half of it."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(dict(targets)) + "\n")
        partial.replace(self._path)

    def add(self, targets: Mapping[str, str]) -> None:
        """Add ports to what was written."""
        if self._path is not None:
            self.write(json.loads(self._path.read_text()) | targets)

    def remove(self) -> None:
        """Remove the file if it is there."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
