"""A real S3 server for one machine: SeaweedFS as a child process, closed to everybody without its credentials.

The launcher and the tests call this. A folder holds data, credentials (mode 0600), ports and the log; starting again
on the same folder finds all of it. The server ends with the process that started it, however that ends.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from artifacts import embedded_state, ports, weed
from artifacts.embedded_state import State
from artifacts.errors import AccessDenied, AlreadyExists, StoreRejected, StoreUnavailable
from artifacts.store import ObjectStore, StoreConfig

_MARKER_BUCKET = "embedded-store"
_MARKER_KEY = "instance"
_ATTEMPTS = 5
_LOCK_SECONDS = 10.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.05


class EmbeddedStore:
    """One server on one folder. `start` and `stop` may alternate; address and credentials then stay the same.

    A new EmbeddedStore on an old folder keeps the credentials, and the address unless another program took it.
    """

    def __init__(self, folder: Path, *, bucket: str = "darkroom", start_timeout_seconds: float = 60.0) -> None:
        self.folder = folder.absolute()
        self._bucket = bucket
        self._start_timeout_seconds = start_timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._state: State | None = None  # set once the address was given out

    @property
    def running(self) -> bool:
        """Whether the server process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        """What the server printed since its last start."""
        return self.folder / "weed.log"

    def start(self) -> StoreConfig:
        """Start the server, wait until it takes objects, make the bucket and return how to reach it.

        Does nothing but return if it runs. Raises StoreUnavailable with the end of the server's log if it does not
        come up, and if another server runs on this folder.
        """
        if self.running and self._state is not None:
            return self._config(self._state)
        self.folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(_ATTEMPTS):
            # Locked first: before that, the ports may belong to a server of this folder that is still ending.
            with self._locked() as lock:
                state = self._state or self._with_free_ports(embedded_state.load(self.folder))
                self._launch(state, lock)
            try:
                self._wait_until_ready(state)
                ObjectStore(self._config(state)).ensure_bucket()
            except weed.PortTakenError as taken:
                self._end()
                if self._state is not None or attempt == _ATTEMPTS - 1:
                    raise StoreUnavailable(_MARKER_BUCKET, self._config(state).url, str(taken)) from taken
            except BaseException:
                self._end()
                raise
            else:
                self._state = state
                break
        return self._config(state)

    def stop(self, kill: bool = False) -> None:
        """Stop the server and wait until no process of it is left; all accepted objects stay.

        `kill` ends it at once, as a crash would; otherwise it gets up to 5 s to close its files (it takes 2 to 3).
        """
        if self._process is None:
            return
        if not kill and self.running:
            # A server that hangs while closing loses nothing by being killed.
            with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
                self._process.wait(timeout=_STOP_SECONDS)
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            weed.end(process)

    def _config(self, state: State) -> StoreConfig:
        return StoreConfig(f"127.0.0.1:{state.ports.s3}", state.access_key, state.secret_key, bucket=self._bucket)

    def _with_free_ports(self, state: State) -> State:
        if ports.are_free(state.ports):
            return state
        moved = replace(state, ports=ports.choose())
        embedded_state.save(self.folder, moved)
        return moved

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The folder's lock as a file descriptor, which the server then inherits and holds as long as it lives."""
        deadline = time.monotonic() + _LOCK_SECONDS
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        problem = "another server runs on this folder; stop it first"
                        raise StoreUnavailable(str(self.folder), "embedded", problem) from None
                    time.sleep(_POLL_SECONDS)
            yield descriptor
        finally:
            os.close(descriptor)

    def _launch(self, state: State, lock: int) -> None:
        if not ports.are_free(state.ports):
            raise StoreUnavailable(_MARKER_BUCKET, self._config(state).url, "another program uses one of its ports")
        guard = str(Path(__file__).with_name("embedded_guard.py"))
        start_guard = [sys.executable, "-I", "-S", guard, str(lock), os.pathsep.join(weed.sockets(state.ports))]
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [*start_guard, *weed.command(self.folder / "data", state.ports)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=weed.environment(self.folder, state.access_key, state.secret_key),
                pass_fds=(lock,),
                start_new_session=True,
            )

    def _wait_until_ready(self, state: State) -> None:
        """Until our marker can be written and read: gateway, filer, volumes and credentials all work then."""
        config = replace(self._config(state), bucket=_MARKER_BUCKET, retries=0, read_timeout_seconds=0.5)
        deadline = time.monotonic() + self._start_timeout_seconds
        last: Exception | None = None
        while True:
            log = self.log_file.read_text(errors="replace")
            if "alternative port" in log:
                raise weed.PortTakenError(
                    "the server moved to another port, because a program had just taken the chosen one"
                )
            if not self.running or time.monotonic() > deadline:
                problem = f"SeaweedFS did not start; it said:\n{log[-2000:]}"
                raise StoreUnavailable(_MARKER_BUCKET, config.url, problem) from last
            try:
                _check_marker(ObjectStore(config), state.instance)
            except (StoreUnavailable, AccessDenied) as error:
                # A young server may leave a request unanswered for good or not know its credentials yet; an overloaded
                # one just needs longer.
                last = error
                config = replace(config, read_timeout_seconds=min(config.read_timeout_seconds * 1.5, 10.0))
                time.sleep(_POLL_SECONDS)
            else:
                break
        _check_closed(config)


def _check_marker(store: ObjectStore, instance: str) -> None:
    """Raise StoreRejected unless the server holds, or takes, the marker of this folder."""
    store.ensure_bucket()
    try:
        store.put_if_absent(_MARKER_KEY, instance.encode())
    except AlreadyExists:
        found = store.get(_MARKER_KEY).decode(errors="replace")
        if found != instance:
            problem = f"this is the server of instance {found!r}, expected {instance!r}"
            raise StoreRejected(_MARKER_KEY, store.config.url, problem) from None


def _check_closed(config: StoreConfig) -> None:
    """Raise StoreRejected if the server takes a wrong secret: it is open to everyone, or it is not ours."""
    try:
        ObjectStore(replace(config, secret_key="wrong", read_timeout_seconds=30)).exists(_MARKER_KEY)
    except AccessDenied:
        return
    raise StoreRejected(_MARKER_KEY, config.url, "the server accepts any credentials; refusing to use it")
