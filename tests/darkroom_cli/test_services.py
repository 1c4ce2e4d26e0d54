"""What the launcher gives each service: settings that the service can read, also where a person keeps secrets in files."""

import os
from pathlib import Path

import pytest
from artifacts.config import StoreConfig
from chassis import config
from chassis.config import ServerConfig
from darkroom_cli.launcher import ports, services


def test_the_token_is_made_once_and_is_for_the_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARKROOM_TOKEN", raising=False)
    made = services.token(tmp_path / "data")
    assert len(made) >= 24
    assert services.token(tmp_path / "data") == made
    assert (tmp_path / "data/token").stat().st_mode & 0o777 == 0o600


def test_secrets_in_files_reach_the_services_as_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TOKEN", "from-a-file"), ("S3_ACCESS_KEY", "access"), ("S3_SECRET_KEY", "hidden-one")):
        (tmp_path / name).write_text(f"{value}\n")
        monkeypatch.delenv(f"DARKROOM_{name}", raising=False)
        monkeypatch.setenv(f"DARKROOM_{name}_FILE", str(tmp_path / name))
    monkeypatch.setenv("DARKROOM_S3_ENDPOINT", "127.0.0.1:9")
    secret, store = services.token(tmp_path / "data"), config.read(StoreConfig)
    assert secret == "from-a-file"
    for child in services.children(tmp_path / "data", store, dict(ports.PREFERRED), secret):
        environment = {**os.environ, **child.env}
        assert config.read(ServerConfig, environment).token == "from-a-file", child.name
        assert config.read(StoreConfig, environment).secret_key == "hidden-one", child.name
