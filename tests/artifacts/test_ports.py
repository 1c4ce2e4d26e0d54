"""Choosing ports."""

import socket
from dataclasses import astuple, replace

from artifacts import ports


def test_chosen_ports_are_free_and_different() -> None:
    chosen = ports.choose()
    numbers = astuple(chosen)
    assert len({*numbers, *(number + ports.GRPC_OFFSET for number in numbers)}) == 10
    assert max(numbers) + ports.GRPC_OFFSET < 32768
    assert ports.are_free(chosen)


def test_a_port_in_use_is_noticed() -> None:
    chosen = ports.choose()
    for address in ("127.0.0.1", "0.0.0.0"):
        with socket.create_server((address, 0)) as listener:
            port = listener.getsockname()[1]
            assert not ports.are_free(replace(chosen, s3=port))
            assert not ports.are_free(replace(chosen, filer=port - ports.GRPC_OFFSET))
