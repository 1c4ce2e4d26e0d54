"""Faults on demand between a client and a real store, for the tests of every package that uses one.

`Proxy` passes bytes on unchanged, remembers what the client sent, and loses connections or answers when told to.
"""

import contextlib
import socket
import threading
import time
from dataclasses import replace
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from artifacts.config import StoreConfig

_BLOCK_BYTES = 65536


class Proxy:
    """A TCP proxy before the store of `target` (plain http); clients use `config`. Use it in a `with` block.

    Faults, each counted down as it happens:
    drop_connections: that many new connections are closed at once.
    lose_answers: that many answers are thrown away after the store has acted, and their connections closed.
    cut_answers_after_bytes: the connection closes once so many bytes of answers have passed on it, then None again.
    request_pause_seconds: before each block of a request is passed on, so that large requests get stuck.
    silent: while true, no answer is passed on and the connection stays open.
    """

    def __init__(self, target: StoreConfig) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sent = bytearray()
        self._sockets: list[socket.socket] = []
        self.config = replace(target, endpoint=f"127.0.0.1:{self._listener.getsockname()[1]}")
        self.connections = 0
        self.drop_connections = 0
        self.lose_answers = 0
        self.cut_answers_after_bytes: int | None = None
        self.request_pause_seconds = 0.0
        self.silent = False

    @property
    def sent(self) -> bytes:
        """Every byte that clients have sent so far."""
        with self._lock:
            return bytes(self._sent)

    @property
    def requests(self) -> list[str]:
        """Heads of the PUT requests seen so far (request line and headers), in the order they came."""
        text = self.sent.decode("latin-1")
        return ["PUT " + part.split("\r\n\r\n", 1)[0] for part in text.split("PUT ")[1:]]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for end in self._sockets:
                _close(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed by __exit__
                return
            self.connections += 1
            if self.drop_connections > 0:
                self.drop_connections -= 1
                _close(client)
                continue
            address = urlsplit(self._target.url)
            server = socket.create_connection((address.hostname, address.port))
            with self._lock:
                self._sockets += [client, server]
            threading.Thread(target=self._pass_requests, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pass_answers, args=(server, client), daemon=True).start()

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := client.recv(_BLOCK_BYTES):
                with self._lock:
                    self._sent += block
                time.sleep(self.request_pause_seconds)
                server.sendall(block)
        _close(server)

    def _pass_answers(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while block := server.recv(_BLOCK_BYTES):
                if self.silent:
                    continue
                if self.lose_answers > 0:
                    self.lose_answers -= 1
                    break
                passed += len(block)
                if self.cut_answers_after_bytes is not None and passed > self.cut_answers_after_bytes:
                    self.cut_answers_after_bytes = None
                    break
                client.sendall(block)
        _close(client)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
