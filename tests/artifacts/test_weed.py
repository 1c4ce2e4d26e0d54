"""Finding and starting the SeaweedFS program."""

import sys
from pathlib import Path

import pytest
from artifacts import ports, weed
from artifacts.errors import ArtifactError


def test_binary_of_the_wheel_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEED_BINARY", raising=False)
    monkeypatch.setenv("PATH", "")
    assert Path(weed.binary()).name == "weed"


def test_binary_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEED_BINARY", sys.executable)
    assert weed.binary() == sys.executable
    monkeypatch.setenv("WEED_BINARY", "/no/such/file")
    with pytest.raises(ArtifactError, match="WEED_BINARY names '/no/such/file'"):
        weed.binary()


def test_missing_binary_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEED_BINARY", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(weed, "_DISTRIBUTION", "no-such-distribution")
    with pytest.raises(ArtifactError, match=r"darkroom-artifacts\[embedded\]"):
        weed.binary()


def test_command_closes_what_is_open_by_default(tmp_path: Path) -> None:
    chosen = ports.choose()
    command = weed.command(tmp_path / "data", chosen)
    for flag in (
        "-ip.bind=127.0.0.1",
        "-disableHttp",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.port={chosen.s3}",
        f"-filer.port={chosen.filer}",
        f"-volume.port={chosen.volume}",
        f"-master.port={chosen.master}",
        f"-admin.port={chosen.admin}",
    ):
        assert flag in command


def test_environment_holds_nothing_else_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_TOKEN", "secret")
    environment = weed.environment(tmp_path, "access", "hidden")
    assert (environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]) == ("access", "hidden")
    assert sorted(environment) == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOMEMLIMIT", "HOME", "PATH"]
