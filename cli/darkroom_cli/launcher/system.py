"""The whole system of one machine: store and services, from the first start to the last process gone."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from artifacts.embedded import EmbeddedStore
from artifacts.store import ObjectStore, StoreConfig
from chassis import config

from darkroom_cli import connection
from darkroom_cli.connection import Connection
from darkroom_cli.launcher import ports, readiness, services
from darkroom_cli.launcher.child import Child, ChildFailed, tail

_POLL_SECONDS = 0.2
# Real models of several gigabytes load from slow disks, too.
START_SECONDS = 900.0
# The configuration is wrong, or the service could not load its model.
_HOPELESS_CODES = (1, 64)


class AlreadyRunning(Exception):
    """Another `darkroom up` uses this data folder. Field: data."""

    def __init__(self, data: Path) -> None:
        super().__init__(f"a Darkroom runs on {data} already; stop it, or choose another folder with DARKROOM_DATA")
        self.data = data


class System:
    """Start, watch and stop everything below one data folder.

    DARKROOM_S3_ENDPOINT in the environment names a store that runs elsewhere; without it an embedded one is started.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.children: list[Child] = []
        self._store: EmbeddedStore | None = None
        self._lock: int | None = None

    def start(self, report: Callable[[str, int, int], None]) -> Connection:
        """Start all and return once every service is ready. report: (what became ready, number ready, of how many).

        Raises AlreadyRunning, ChildFailed, and what the store raises; whatever was started is stopped then.
        """
        self._take_lock()
        try:
            store = self._start_store()
            secret = services.token(self.data)
            with ports.reserved():
                chosen = ports.choose(services.HOST)
                self.children = services.children(self.data, store, chosen, secret)
                report("store", 1, len(self.children) + 1)
                for child in self.children:
                    child.start()
                self._wait_ready(report)
            where = services.connection(chosen, secret)
            where.save(self.data)
        except BaseException:
            self.stop()
            raise
        return where

    def watch(self) -> list[str]:
        """Start dead services again; a line for each. Raises ChildFailed for one that keeps dying."""
        lines = []
        for child in self.children:
            code = child.revive()
            if code is not None:
                lines.append(f"{child.name} ended with code {code} and was started again; its log is {child.log_file}")
        if self._store is not None and not self._store.running:
            self._store.start()
            lines.append(f"the store ended and was started again; its log is {self._store.log_file}")
        return lines

    def stop(self) -> None:
        """Stop everything, gateway first, the store last. Safe to repeat."""
        connection.forget(self.data)
        for child in reversed(self.children):
            child.ask_to_stop()
        for child in reversed(self.children):
            child.wait_stopped()
        self.children = []
        if self._store is not None:
            self._store.stop()
            self._store = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = None
            raise AlreadyRunning(self.data) from None

    def _start_store(self) -> StoreConfig:
        if "DARKROOM_S3_ENDPOINT" in os.environ:
            store = config.read(StoreConfig)
            ObjectStore(store).ensure_bucket()
            return store
        self._store = EmbeddedStore(self.data / "store")
        return self._store.start()

    def _wait_ready(self, report: Callable[[str, int, int], None]) -> None:
        waiting = list(self.children)
        deadline = time.monotonic() + START_SECONDS
        while waiting:
            for child in list(waiting):
                if readiness.is_ready(child.endpoint_file):
                    waiting.remove(child)
                    total = len(self.children) + 1
                    report(child.name, total - len(waiting), total)
                elif (code := child.revive()) is not None and code in _HOPELESS_CODES:
                    # Its configuration or its model is wrong: a second start would say the same.
                    raise ChildFailed(child.name, code, child.log_file)
            if time.monotonic() > deadline:
                late = waiting[0]
                raise TimeoutError(
                    f"{late.name} was not ready after {START_SECONDS:.0f} s; end of {late.log_file}:\n{tail(late.log_file)}"
                )
            time.sleep(_POLL_SECONDS)
