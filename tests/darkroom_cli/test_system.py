"""The launcher's system with stand-ins for the services: which store it takes, what it says, what it leaves behind."""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.errors import AccessDenied, StoreUnavailable
from artifacts.store import ObjectStore, StoreConfig
from chassis.config import ConfigError
from darkroom_cli.launcher import readiness, services
from darkroom_cli.launcher.child import Child, ChildFailed
from darkroom_cli.launcher.system import AlreadyRunning, System

PATIENCE_SECONDS = 30
SERVICE = "import os, pathlib, time; pathlib.Path(os.environ['READY']).touch(); time.sleep(60)"
CREDENTIALS = ("DARKROOM_S3_ENDPOINT", "DARKROOM_S3_ACCESS_KEY", "DARKROOM_S3_SECRET_KEY", "DARKROOM_S3_BUCKET")


@pytest.fixture(autouse=True)
def external(store_config: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreConfig]:
    """A store that runs elsewhere, named by the environment; the bucket does not exist yet."""
    config = replace(store_config, bucket=f"test-{secrets.token_hex(6)}")
    for name, value in zip(
        CREDENTIALS, (config.endpoint, config.access_key, config.secret_key, config.bucket), strict=True
    ):
        monkeypatch.setenv(name, value)
    yield config
    ObjectStore(config).ensure_bucket()
    ObjectStore(config).delete_bucket()


class StandIns:
    """Takes the place of `services.children`; keeps what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = SERVICE
        self.store: StoreConfig | None = None

    def __call__(self, data: Path, store: StoreConfig, ports: dict[str, int], secret: str) -> list[Child]:
        self.store = store
        (self.folder / "stand_in.py").write_text(self.code)
        ready = self.folder / "ready.json"
        env = {"PYTHONPATH": str(self.folder), "READY": str(ready)}
        return [Child("captioner", "stand_in", env, data / "logs" / "captioner.log", ready)]


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    made = StandIns(tmp_path)
    monkeypatch.setattr(services, "children", made)
    monkeypatch.setattr(readiness, "is_ready", Path.exists)
    return made


@pytest.fixture
def system(tmp_path: Path, stand_ins: StandIns) -> Iterator[System]:
    made = System(tmp_path / "data")
    yield made
    made.stop()


def quiet(waiting: Sequence[str]) -> None:
    pass


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_store_named_by_the_environment_is_used(system: System, stand_ins: StandIns, external: StoreConfig) -> None:
    system.start(quiet)
    assert stand_ins.store == external
    ObjectStore(external).put("proof", b"that the bucket was made")
    assert not (system.data / "store").exists()


def test_wrong_credentials_are_told_before_anything_starts(
    system: System, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_S3_SECRET_KEY", "wrong")
    with pytest.raises(AccessDenied, match="DARKROOM_S3_SECRET_KEY"):
        system.start(quiet)
    assert stand_ins.store is None


def test_a_store_that_does_not_answer_is_named(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_S3_ENDPOINT", "127.0.0.1:9")
    monkeypatch.setenv("DARKROOM_S3_RETRIES", "0")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9"):
        system.start(quiet)


def test_credentials_without_their_store_are_not_ignored(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_S3_ENDPOINT", "")
    with pytest.raises(ConfigError, match=r"DARKROOM_S3_ENDPOINT is not set, but DARKROOM_S3_ACCESS_KEY"):
        system.start(quiet)


def test_it_says_what_it_waits_for(system: System) -> None:
    said: list[list[str]] = []
    system.start(lambda waiting: said.append(list(waiting)))
    assert said == [["store"], ["captioner"], []]


def test_a_service_that_cannot_start_ends_it_at_once(system: System, stand_ins: StandIns) -> None:
    stand_ins.code = "import sys; print('no such model'); sys.exit(64)"
    with pytest.raises(ChildFailed, match=r"captioner ended with code 64; .*captioner\.log:\nno such model"):
        system.start(quiet)


def test_a_dead_service_is_told_and_started_again(system: System) -> None:
    system.start(quiet)
    os.kill(first := system.children[0].pid, 9)
    told: list[str] = []
    until(lambda: told.extend(system.watch()) or told)
    assert told[0].startswith("captioner ended with code -9 and was started again")
    assert system.children[0].pid != first


def test_a_second_one_on_the_same_folder_leaves_the_first_alone(system: System) -> None:
    system.start(quiet)
    second = System(system.data)
    with pytest.raises(AlreadyRunning, match="runs on"):
        second.start(quiet)
    second.stop()
    assert (system.data / "connection.json").exists()
    assert system.watch() == []


def test_what_stops_is_gone_and_the_token_stays(system: System) -> None:
    before = system.start(quiet).token
    pid = system.children[0].pid
    system.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not (system.data / "connection.json").exists()
    assert system.start(quiet).token == before
