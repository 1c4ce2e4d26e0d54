"""Addresses come from the file that `darkroom up` wrote, or from the environment."""

import fcntl
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from darkroom_cli import connection
from darkroom_cli.connection import Connection, ConnectionInvalid, EndpointInvalid, NotRunning, endpoints

HERE = Connection("a:1", "b:2", "c:3", "d:4", "http://e:5", "secret")


@pytest.fixture(autouse=True)
def no_outer_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in vars(HERE):
        monkeypatch.delenv(f"DARKROOM_{name.upper()}", raising=False)
    monkeypatch.delenv("DARKROOM_CONNECTION", raising=False)
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path))


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    HERE.save(tmp_path)
    assert connection.load() == HERE


def test_files_with_the_token_are_for_the_owner_only(tmp_path: Path) -> None:
    (tmp_path / "connection.json").touch(0o644)
    HERE.save(tmp_path)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("connection.json", "env")] == [0o600, 0o600]


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    HERE.save(tmp_path)
    monkeypatch.setenv("DARKROOM_CAPTIONER", "elsewhere:9")
    assert connection.load().captioner == "elsewhere:9"


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in vars(HERE).items():
        monkeypatch.setenv(f"DARKROOM_{name.upper()}", value)
    assert connection.load() == HERE


def test_the_token_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    HERE.save(tmp_path)
    (tmp_path / "secret").write_text("from-a-file\n")
    monkeypatch.setenv("DARKROOM_TOKEN_FILE", str(tmp_path / "secret"))
    assert connection.load() == replace(HERE, token="from-a-file")


def test_without_either_the_message_says_how_to_start() -> None:
    with pytest.raises(NotRunning, match="darkroom up"):
        connection.load()


def test_forget_removes_both_and_may_be_repeated(tmp_path: Path) -> None:
    HERE.save(tmp_path)
    connection.forget(tmp_path)
    connection.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_a_killed_launcher_left_is_none(tmp_path: Path) -> None:
    HERE.save(tmp_path)
    (tmp_path / "lock").touch()
    with pytest.raises(NotRunning, match="was killed"):
        connection.load()


def test_the_file_of_a_launcher_that_lives_is_used(tmp_path: Path) -> None:
    HERE.save(tmp_path)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert connection.load() == HERE


@pytest.mark.parametrize("text", ["", "[]", '{"captioner": "a:1"}'])
def test_a_file_that_says_no_connection_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "connection.json").write_text(text)
    with pytest.raises(ConnectionInvalid, match=r"connection\.json is not what"):
        connection.load()


def test_endpoints_win_over_all_and_need_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_TRAINER", "elsewhere:9")
    given = endpoints([f"{name}={address}" for name, address in vars(HERE).items() if name != "token"])
    assert connection.load(given) == replace(HERE, token="")
    monkeypatch.setenv("DARKROOM_TOKEN", HERE.token)
    assert connection.load(given) == HERE


def test_a_single_endpoint_replaces_that_of_the_file(tmp_path: Path) -> None:
    HERE.save(tmp_path)
    assert connection.load(endpoints(["http=http://other:1/a=b"])) == replace(HERE, http="http://other:1/a=b")


@pytest.mark.parametrize("text", ["trainer", "trainer=", "token=x", "nobody=a:1"])
def test_what_is_no_endpoint_is_refused_with_the_names(text: str) -> None:
    with pytest.raises(EndpointInvalid, match="captioner, trainer, converter, webui, http"):
        endpoints([text])
