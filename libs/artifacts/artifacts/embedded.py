"""A real S3 server for one machine: SeaweedFS as a child process, closed to everybody without its credentials.

The launcher and the tests call this. A folder holds data, credentials (mode 0600), ports and the log; starting again
on the same folder finds all of it. Nothing survives the process that started it, however that ends.
"""

import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from artifacts import ports, weed
from artifacts.errors import AccessDenied, AlreadyExists, ArtifactError, StoreUnavailable
from artifacts.store import ObjectStore, StoreConfig

_MARKER_BUCKET = "embedded-store"
_MARKER_KEY = "instance"
_ATTEMPTS = 5


@dataclass(frozen=True)
class _State:
    """What a folder remembers of its server."""

    access_key: str
    secret_key: str
    instance: str
    ports: ports.Ports


class EmbeddedStore:
    """One server on one folder. `start` and `stop` may alternate; address and credentials stay the same."""

    def __init__(self, folder: Path, *, bucket: str = "darkroom", start_timeout_seconds: float = 60.0) -> None:
        self.folder = folder.absolute()
        self._bucket = bucket
        self._start_timeout_seconds = start_timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._address_given = False

    @property
    def log_file(self) -> Path:
        """What the server printed since its last start."""
        return self.folder / "weed.log"

    def start(self) -> StoreConfig:
        """Start the server, wait until it takes objects, make the bucket and return how to reach it.

        Raises StoreUnavailable with the end of the server's log if it does not come up, or if another server already
        runs on this folder.
        """
        if self._process is not None and self._process.poll() is None:
            return self._config(self._load())
        self.folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(_ATTEMPTS):
            state = self._choose_ports(self._load())
            try:
                self._launch(state)
                self._wait_until_ready(state)
            except weed.PortTaken as taken:
                self.stop(kill=True)
                if self._address_given or attempt == _ATTEMPTS - 1:
                    raise StoreUnavailable(_MARKER_BUCKET, self._config(state).url, str(taken)) from taken
                continue
            except BaseException:
                self.stop(kill=True)
                raise
            self._address_given = True
            ObjectStore(self._config(state)).ensure_bucket()
            return self._config(state)
        raise AssertionError("unreachable")

    def stop(self, kill: bool = False) -> None:
        """Stop the server and wait until no process of it is left; all accepted objects stay.

        `kill` ends it at once, as a crash would; otherwise it gets a few seconds to close its files.
        """
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if not kill and process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(timeout=10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        finally:
            weed.kill_group(process)
            weed.remove_sockets(self._load().ports)

    def _config(self, state: _State) -> StoreConfig:
        return StoreConfig(f"127.0.0.1:{state.ports.s3}", state.access_key, state.secret_key, bucket=self._bucket)

    def _load(self) -> _State:
        file = self.folder / "embedded-store.json"
        if not file.exists():
            state = _State(secrets.token_hex(10), secrets.token_hex(20), secrets.token_hex(8), ports.choose())
            self._save(state)
            return state
        record = json.loads(file.read_bytes())
        return _State(record["access_key"], record["secret_key"], record["instance"], ports.Ports(**record["ports"]))

    def _save(self, state: _State) -> None:
        file, part = self.folder / "embedded-store.json", self.folder / ".embedded-store.part"
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(asdict(state), out, indent=2)
        os.replace(part, file)

    def _choose_ports(self, state: _State) -> _State:
        if self._address_given or ports.are_free(state.ports):
            return state
        state = replace(state, ports=ports.choose())
        self._save(state)
        return state

    def _lock(self, deadline: float) -> int:
        """The folder's lock as a file descriptor, handed on to the server. A dying predecessor is waited for."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise StoreUnavailable(
                        str(self.folder), "embedded store", "another server runs on this folder; stop it first"
                    ) from None
                time.sleep(0.05)
            else:
                return descriptor

    def _launch(self, state: _State) -> None:
        lock = self._lock(time.monotonic() + 5)
        try:
            if not ports.are_free(state.ports):
                raise weed.PortTaken("one of its ports is used by another program")
            guard = str(Path(__file__).with_name("embedded_guard.py"))
            command = [sys.executable, "-I", "-S", guard, str(lock), *weed.command(self.folder / "data", state.ports)]
            with self.log_file.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env=weed.environment(self.folder, state.access_key, state.secret_key),
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        finally:
            os.close(lock)

    def _wait_until_ready(self, state: _State) -> None:
        """Until our marker can be written and read: gateway, filer, volume and credentials all work then."""
        config = replace(self._config(state), bucket=_MARKER_BUCKET, retries=0, read_timeout_seconds=5)
        deadline = time.monotonic() + self._start_timeout_seconds
        while True:
            log = self.log_file.read_text(errors="replace")
            if "alternative port" in log:
                raise weed.PortTaken("it moved to another port")
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise StoreUnavailable(_MARKER_BUCKET, config.url, f"SeaweedFS did not start:\n{log[-2000:]}")
            try:
                self._check_marker(ObjectStore(config), state)
            except StoreUnavailable:
                time.sleep(0.05)
            else:
                break
        self._check_closed(config)

    def _check_marker(self, store: ObjectStore, state: _State) -> None:
        store.ensure_bucket()
        try:
            store.put_if_absent(_MARKER_KEY, state.instance.encode())
        except AlreadyExists:
            found = store.get(_MARKER_KEY).decode()
            if found != state.instance:
                raise ArtifactError(f"{store.config.url} serves instance {found}, not {state.instance}") from None

    def _check_closed(self, config: StoreConfig) -> None:
        """A server that takes a wrong secret is open to everyone, or is not ours."""
        try:
            ObjectStore(replace(config, secret_key="wrong")).exists(_MARKER_KEY)
        except AccessDenied:
            return
        raise ArtifactError(f"{config.url} accepts any credentials; refusing to use it")
