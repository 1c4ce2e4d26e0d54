"""Preferred ports if they are free, others if not, never one port twice."""

import socket

from darkroom_cli.launcher.ports import PREFERRED, choose


def test_every_service_has_a_port_of_its_own() -> None:
    chosen = choose()
    assert set(chosen) == set(PREFERRED)
    assert len(set(chosen.values())) == len(PREFERRED)


def test_a_taken_port_is_replaced() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", PREFERRED["captioner"]))
        except OSError:
            pass  # Taken by somebody else: just as good.
        else:
            taken.listen()
        assert choose()["captioner"] != PREFERRED["captioner"]
