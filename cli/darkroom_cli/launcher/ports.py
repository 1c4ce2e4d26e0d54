"""Ports of `darkroom up`: the same ones every time if they are free, so that bookmarks and examples keep working."""

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

# 7860 is where A1111 listens.
PREFERRED: Mapping[str, int] = {
    "http": 7860,
    "captioner": 7861,
    "trainer": 7862,
    "converter": 7863,
    "webui": 7864,
    "engine": 7865,
}


@contextlib.contextmanager
def reserved() -> Iterator[None]:
    """Keeps other launchers of this user from choosing while ours has chosen and its services have not opened them yet."""
    path = Path(tempfile.gettempdir()) / f"darkroom-ports-{os.getuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def choose(host: str = "127.0.0.1") -> dict[str, int]:
    """A port for each service: the preferred one, or any free one if that is taken."""
    sockets = []
    chosen = {}
    try:
        for name, port in PREFERRED.items():
            taken = _bind(host, port) or _bind(host, 0)
            if taken is None:
                raise OSError(f"no free port on {host}")
            sockets.append(taken)
            chosen[name] = taken.getsockname()[1]
    finally:
        for taken in sockets:
            taken.close()
    return chosen


def _bind(host: str, port: int) -> socket.socket | None:
    """A bound socket, None if the port is taken. Held until all are chosen, so that no port is given twice."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((host, port))
    except OSError:
        probe.close()
        return None
    return probe
