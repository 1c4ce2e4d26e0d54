"""What of the building machine's network goes into the build, and how."""

import subprocess
from pathlib import Path

import pytest

from images import network


@pytest.fixture(autouse=True)
def no_configuration_of_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_pip_config", dict)


def variables(file: Path) -> dict[str, str]:
    """What a shell has after it read the secret."""
    done = subprocess.run(("env", "-i", "sh", "-c", f". {file}; env"), capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_without_settings_there_is_nothing(tmp_path: Path) -> None:
    assert network.secrets(tmp_path, {}) == {}


def test_certificates_are_bound_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("a certificate")
    environ = {"SSL_CERT_FILE": str(tmp_path / "missing.pem")}
    assert network.secrets(tmp_path, environ) == {}
    assert network.secrets(tmp_path, environ | {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}) == {
        "ca": tmp_path / "ca.pem"
    }


def test_an_index_of_pip_is_also_that_of_uv(tmp_path: Path) -> None:
    url = "https://user:pass'word@index.example/simple"
    (name, file), *others = network.secrets(tmp_path, {"PIP_INDEX_URL": url}).items()
    assert (name, others) == ("network", [])
    assert file.stat().st_mode & 0o077 == 0
    found = variables(file)
    assert found["PIP_INDEX_URL"] == found["UV_DEFAULT_INDEX"] == url


def test_each_keeps_its_own_index(tmp_path: Path) -> None:
    given = {"PIP_INDEX_URL": "https://pip.example", "UV_DEFAULT_INDEX": "https://uv.example"}
    found = variables(network.secrets(tmp_path, given)["network"])
    assert given.items() <= found.items()
