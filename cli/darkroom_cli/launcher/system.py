"""The whole system of one machine: store and services, from the first start to the last process gone."""

import fcntl
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from artifacts.embedded import EmbeddedStore
from artifacts.store import ObjectStore, StoreConfig
from chassis import config
from chassis.config import ConfigError

from darkroom_cli import connection
from darkroom_cli.connection import Connection
from darkroom_cli.launcher import ports, readiness, services, signals
from darkroom_cli.launcher.child import STOP_SECONDS, Child, ChildFailed, tail
from darkroom_cli.launcher.watchdog import Watchdog

_POLL_SECONDS = 0.2
# Real models of several gigabytes load from slow disks, too.
START_SECONDS = 900.0
# The configuration is wrong, or the service could not load its model.
_HOPELESS_CODES = (1, 64)
_CREDENTIALS = ("DARKROOM_S3_ACCESS_KEY", "DARKROOM_S3_SECRET_KEY")


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
        self._watchdog: Watchdog | None = None
        self._lock: int | None = None

    @property
    def started(self) -> bool:
        """Whether there is something to stop."""
        return self._lock is not None

    def start(self, report: Callable[[Sequence[str]], None]) -> Connection:
        """Start all and return once every service is ready. report: the names of those that are not, after each change.

        Raises AlreadyRunning, ChildFailed, TimeoutError, ConfigError, and what the store raises. Failed or not, `stop`
        must follow.
        """
        self._take_lock()
        connection.forget(self.data)  # What a launcher left that was killed.
        report(["store"])
        store = self._start_store()
        secret = services.token(self.data)
        self._watchdog = Watchdog(STOP_SECONDS)
        with ports.reserved():
            chosen = ports.choose(services.HOST)
            self.children = services.children(self.data, store, chosen, secret)
            for child in self.children:
                child.start()
                self._watch_processes()
            self._wait_ready(report)
        where = services.connection(chosen, secret)
        where.save(self.data)
        return where

    def watch(self) -> list[str]:
        """Start dead services again; a line for each. Raises ChildFailed for one that keeps dying."""
        lines = []
        for child in self.children:
            code = self._revive(child)
            if code is not None:
                lines.append(f"{child.name} ended with code {code} and was started again; its log is {child.log_file}")
        if self._store is not None and not self._store.running:
            self._store.start()
            lines.append(f"the store ended and was started again; its log is {self._store.log_file}")
        return lines

    def stop(self) -> None:
        """Stop everything, gateway first, the store last; signals wait that long. Safe to repeat."""
        with signals.ignored():
            if self._lock is None:
                return  # Nothing was started; a connection.json is that of another system on this folder.
            connection.forget(self.data)
            for child in reversed(self.children):
                child.ask_to_stop()
            for child in reversed(self.children):
                child.wait_stopped()
            self.children = []
            if self._watchdog is not None:
                self._watchdog.close()
                self._watchdog = None
            if self._store is not None:
                self._store.stop()
                self._store = None
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.data / connection.LOCK_FILENAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = None
            raise AlreadyRunning(self.data) from None

    def _start_store(self) -> StoreConfig:
        if os.environ.get("DARKROOM_S3_ENDPOINT"):
            store = config.read(StoreConfig)
            ObjectStore(store).ensure_bucket()
            return store
        if given := [name for name in _CREDENTIALS if os.environ.get(name)]:
            raise ConfigError(
                (
                    f"DARKROOM_S3_ENDPOINT is not set, but {' and '.join(given)}: say which store that is for, or unset it",
                )
            )
        self._store = EmbeddedStore(self.data / "store", bucket=os.environ.get("DARKROOM_S3_BUCKET") or "darkroom")
        return self._store.start()

    def _revive(self, child: Child) -> int | None:
        code = child.revive()
        if code is not None:
            self._watch_processes()
        return code

    def _watch_processes(self) -> None:
        assert self._watchdog is not None
        self._watchdog.watch(child.pid for child in self.children if child.pid)

    def _wait_ready(self, report: Callable[[Sequence[str]], None]) -> None:
        waiting = list(self.children)
        deadline = time.monotonic() + START_SECONDS
        report([child.name for child in waiting])
        while waiting:
            for child in list(waiting):
                if readiness.is_ready(child.endpoint_file):
                    waiting.remove(child)
                    report([left.name for left in waiting])
                elif (code := self._revive(child)) is not None and code in _HOPELESS_CODES:
                    # Its configuration or its model is wrong: a second start would say the same.
                    raise ChildFailed(child.name, code, 1, child.log_file)
            if time.monotonic() > deadline:
                late = waiting[0]
                raise TimeoutError(
                    f"{late.name} was not ready after {START_SECONDS:.0f} s; end of {late.log_file}:\n{tail(late.log_file)}"
                )
            time.sleep(_POLL_SECONDS)
