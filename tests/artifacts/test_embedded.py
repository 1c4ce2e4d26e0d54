"""The embedded server: closed, faithful to its address and data, and gone when it should be."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path

import pytest
import urllib3
from artifacts import embedded, embedded_state, ports
from artifacts.embedded import EmbeddedStore
from artifacts.errors import AccessDenied, ManifestInvalid, StoreRejected, StoreUnavailable
from artifacts.store import ObjectStore, StoreConfig


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    server = EmbeddedStore(tmp_path_factory.mktemp("own") / "store")
    yield server
    server.stop(kill=True)


@pytest.fixture
def server(own_server: EmbeddedStore) -> EmbeddedStore:
    """A running server that the test may kill: the next test that needs it starts it again."""
    own_server.start()
    return own_server


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _ports(server: EmbeddedStore) -> ports.Ports:
    assert server._state is not None
    return server._state.ports


@pytest.mark.parametrize("kill", [True, False], ids=["kill", "stop"])
def test_restart_keeps_address_credentials_and_data(server: EmbeddedStore, kill: bool) -> None:
    config = server.start()
    store = ObjectStore(config)
    with store.writer("big") as writer:
        writer.write(bytes(20_000_000))
    for number in range(20):
        store.put(f"small/{number}", b"x")
    assert server._process is not None
    group = server._process.pid
    server.stop(kill=kill)
    assert not server.running
    assert not _group_lives(group)
    with pytest.raises(StoreUnavailable):
        ObjectStore(replace(config, retries=0)).get("small/0")
    assert server.start() == config
    assert store.stat("big").size_bytes == 20_000_000
    assert len(list(store.list("small/"))) == 20
    assert store.get("small/19") == b"x"


def test_another_object_on_the_same_folder_finds_the_data(server: EmbeddedStore) -> None:
    config = server.start()
    ObjectStore(config).put("a", b"x")
    server.stop(kill=True)
    other = EmbeddedStore(server.folder)
    try:
        assert other.start() == config
        assert ObjectStore(config).get("a") == b"x"
    finally:
        other.stop(kill=True)


def test_a_server_killed_from_outside_can_be_started_again(server: EmbeddedStore) -> None:
    config = server.start()
    ObjectStore(config).put("a", b"x")
    assert server._process is not None
    os.killpg(server._process.pid, signal.SIGKILL)
    server._process.wait()
    assert not server.running
    assert server.start() == config
    assert ObjectStore(config).get("a") == b"x"


def test_stop_may_be_repeated(server: EmbeddedStore) -> None:
    server.stop(kill=True)
    server.stop(kill=True)
    server.stop()
    EmbeddedStore(server.folder).stop()


def _sockets(ports_of_server: ports.Ports) -> list[Path]:
    numbers = [str(number) for port in astuple(ports_of_server) for number in (port, port + ports.GRPC_OFFSET)]
    return [file for file in Path("/tmp").glob("seaweedfs-*.sock") if file.stem.rsplit("-", 1)[1] in numbers]


def test_no_sockets_are_left_in_tmp(server: EmbeddedStore) -> None:
    assert _sockets(_ports(server)) != []
    server.stop(kill=True)
    assert _sockets(_ports(server)) == []


def test_credentials_are_always_needed(server: EmbeddedStore) -> None:
    config = server.start()
    ObjectStore(config).put("secret", b"hidden")
    for wrong in (replace(config, secret_key="wrong"), replace(config, access_key="wrong")):
        with pytest.raises(AccessDenied):
            ObjectStore(wrong).get("secret")
    answered = set()
    for port in astuple(_ports(server)):
        for path in ("/darkroom/secret", "/buckets/darkroom/secret"):
            try:
                answer = urllib3.request("GET", f"http://127.0.0.1:{port}{path}", retries=False, redirect=False)
            except urllib3.exceptions.NewConnectionError:
                continue  # Parts that nobody waits for may open their ports later, on a busy machine much later.
            answered.add(port)
            assert answer.status >= 400, (port, path)
            assert b"hidden" not in answer.data
    assert {_ports(server).s3, _ports(server).filer} <= answered


def test_credentials_are_for_the_owner_only(server: EmbeddedStore) -> None:
    file = server.folder / embedded_state.FILE_NAME
    assert file.stat().st_mode & 0o077 == 0
    secret = json.loads(file.read_bytes())["secret_key"]
    assert len(secret) >= 32
    assert (server.folder / "data").stat().st_mode & 0o077 == 0
    assert secret not in server.log_file.read_text()


def test_credentials_differ_between_folders(tmp_path: Path) -> None:
    states = []
    for name in "ab":
        (tmp_path / name).mkdir()
        states.append(embedded_state.load(tmp_path / name))
        assert embedded_state.load(tmp_path / name) == states[-1]
    assert states[0].secret_key != states[1].secret_key


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_listens_on_the_loopback_only(server: EmbeddedStore) -> None:
    own = {f"{number:04X}" for port in astuple(_ports(server)) for number in (port, port + ports.GRPC_OFFSET)}
    sockets = [
        line.split() for file in ("tcp", "tcp6") for line in Path("/proc/net", file).read_text().splitlines()[1:]
    ]
    listening = [fields[1].split(":") for fields in sockets if fields[3] == "0A"]
    addresses = {address for address, port in listening if port in own}
    assert addresses == {"0100007F"}


def test_two_servers_on_one_folder_are_refused(server: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_LOCK_SECONDS", 0.1)
    with pytest.raises(StoreUnavailable, match="another server runs on this folder"):
        EmbeddedStore(server.folder).start()
    assert server.running
    assert embedded_state.load(server.folder) == server._state


def test_a_port_taken_before_the_first_start_is_avoided(server: EmbeddedStore) -> None:
    config = server.start()
    ObjectStore(config).put("a", b"x")
    server.stop(kill=True)
    with socket.create_server(("127.0.0.1", _ports(server).s3)):
        moved = EmbeddedStore(server.folder)
        try:
            other = moved.start()
            assert other.endpoint != config.endpoint
            assert ObjectStore(other).get("a") == b"x"
        finally:
            moved.stop(kill=True)
            assert server._state is not None
            embedded_state.save(server.folder, server._state)


def test_a_port_taken_between_stop_and_start_is_an_error(server: EmbeddedStore) -> None:
    config = server.start()
    server.stop(kill=True)
    with (
        socket.create_server(("127.0.0.1", _ports(server).filer)),
        pytest.raises(StoreUnavailable, match="another program uses one of its ports"),
    ):
        server.start()
    assert server.start() == config


def _program(folder: Path, text: str) -> str:
    file = folder / "weed"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def test_a_server_that_dies_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEED_BINARY", _program(tmp_path, "echo disk on fire; exit 3"))
    server = EmbeddedStore(tmp_path / "store")
    with pytest.raises(StoreUnavailable, match="disk on fire"):
        server.start()
    assert not server.running


def test_a_server_that_moves_to_another_port_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = tmp_path / "starts"
    program = f"echo start >> {starts}; echo 'Port 1 is not available, finding alternative port...'; exec sleep 60"
    monkeypatch.setenv("WEED_BINARY", _program(tmp_path, program))
    with pytest.raises(StoreUnavailable, match="moved to another port"):
        EmbeddedStore(tmp_path / "store").start()
    assert len(starts.read_text().splitlines()) == 5


def test_a_server_that_never_answers_is_given_up_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    monkeypatch.setenv("WEED_BINARY", _program(tmp_path, f"echo $$ > {pid_file}; trap '' TERM; exec sleep 60"))
    with pytest.raises(StoreUnavailable, match="did not start"):
        EmbeddedStore(tmp_path / "store", start_timeout_seconds=0.5).start()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_an_open_server_is_refused(fixed_answer) -> None:
    with pytest.raises(StoreRejected, match="accepts any credentials"):
        embedded._check_closed(fixed_answer.config)


def test_the_server_of_another_folder_is_refused(store: ObjectStore) -> None:
    embedded._check_marker(store, "ours")
    embedded._check_marker(store, "ours")
    with pytest.raises(StoreRejected, match="instance 'ours', expected 'other'"):
        embedded._check_marker(store, "other")


def test_a_damaged_state_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / embedded_state.FILE_NAME).write_text("{}")
    with pytest.raises(ManifestInvalid, match="remove it to start with new credentials"):
        EmbeddedStore(tmp_path).start()


_PARENT = """
import sys, time
from pathlib import Path
from artifacts.embedded import EmbeddedStore
from artifacts.store import ObjectStore
server = EmbeddedStore(Path(sys.argv[1]))
config = server.start()
ObjectStore(config).put("a", b"x")
print(config.endpoint, server._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("victim", ["parent", "guard"])
def test_no_server_survives_its_parent_or_its_guard(tmp_path: Path, victim: str) -> None:
    command = [sys.executable, "-c", _PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert select.select([parent.stdout], [], [], 60)[0], "the server did not start in time"
        endpoint, guard = parent.stdout.readline().split()
        os.kill(parent.pid if victim == "parent" else int(guard), signal.SIGKILL)
        # The folder's lock is held by the server itself: getting it proves that the old server is gone.
        successor = EmbeddedStore(tmp_path)
        try:
            config: StoreConfig = successor.start()
            assert ObjectStore(config).get("a") == b"x"
            assert config.endpoint == endpoint
        finally:
            successor.stop(kill=True)
            parent.kill()
