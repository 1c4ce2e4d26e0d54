"""What the building machine's network asks for: its package index and its certificates, as build secrets.

Each secret is a file that one `RUN` sees and no layer keeps. Without own settings there is none, and packages come from
the public index.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_INDEX = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
_MORE = ("PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_INSECURE_HOST")
_CA = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def secrets(folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """The secrets by their ids, `ca` and `network`, as far as there are any; files that are made lie in `folder`."""
    found: dict[str, Path] = {}
    pip = _pip_config()
    authority = next((environ[name] for name in _CA if environ.get(name)), pip.get("cert", ""))
    if authority and Path(authority).is_file():
        found["ca"] = Path(authority)
    if lines := _index_lines(environ, pip):
        found["network"] = folder / "network"
        found["network"].touch(mode=0o600)
        found["network"].write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in lines.items()))
    return found


def _index_lines(environ: Mapping[str, str], pip: Mapping[str, str]) -> dict[str, str]:
    """Variables for pip and uv. An index that only one of them names is meant for both."""
    lines = {name: environ[name] for name in (*_INDEX, *_MORE) if environ.get(name)}
    index = next((lines[name] for name in _INDEX if name in lines), pip.get("index-url", ""))
    if index:
        lines = {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index} | lines
    return lines


def _pip_config() -> dict[str, str]:
    """The settings of pip's configuration files by their names, without the section."""
    command = (sys.executable, "-m", "pip", "config", "list")
    done = subprocess.run(command, capture_output=True, text=True)
    pairs = (line.partition("=") for line in done.stdout.splitlines() if line.startswith(("global.", "install.")))
    return {name.partition(".")[2]: value.strip("'\"") for name, _, value in pairs}
