"""Free ports for the embedded store. SeaweedFS puts the gRPC port of each of its servers 10,000 above the HTTP one."""

import random
import socket
from dataclasses import astuple, dataclass

GRPC_OFFSET = 10_000
# Both ranges lie below 32768, where Linux starts to hand out ports to outgoing connections.
_FIRST, _LAST = 12_000, 22_000


@dataclass(frozen=True)
class Ports:
    """The five HTTP ports of one server on 127.0.0.1."""

    s3: int
    filer: int
    volume: int
    master: int
    admin: int


def choose() -> Ports:
    """Five ports that are free now, together with their gRPC neighbours."""
    found: list[int] = []
    while len(found) < 5:
        port = random.randrange(_FIRST, _LAST)
        if port not in found and _is_free(port) and _is_free(port + GRPC_OFFSET):
            found.append(port)
    return Ports(*found)


def are_free(ports: Ports) -> bool:
    """Whether nobody listens on any of them."""
    return all(_is_free(port) and _is_free(port + GRPC_OFFSET) for port in astuple(ports))


def _is_free(port: int) -> bool:
    # All addresses, because somebody on 0.0.0.0 would share the port with us.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
