"""Where a running Darkroom is: addresses and token, as `darkroom up` wrote them or as the environment says.

Every command loads this first. `DARKROOM_CONNECTION` names another file; each address can be set by its own variable.
"""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FILENAME = "connection.json"


class NotRunning(Exception):
    """No connection file, so most likely nothing runs here. Field: path."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"no running Darkroom found: {path} does not exist. Start one with `darkroom up`, or set DARKROOM_DATA to its data folder."
        )
        self.path = path


@dataclass(frozen=True)
class Connection:
    """Addresses as "host:port"; http is a URL. DARKROOM_<FIELD> in the environment wins over the file."""

    captioner: str
    trainer: str
    converter: str
    webui: str
    http: str
    token: str

    def save(self, data: Path) -> None:
        """Write connection.json, readable by its owner only, and `env` for shells."""
        _write_private(data / FILENAME, json.dumps(asdict(self), indent=2) + "\n")
        lines = (f"export DARKROOM_{name.upper()}={value}" for name, value in asdict(self).items())
        _write_private(data / "env", "\n".join(lines) + "\n")


def data_folder() -> Path:
    """DARKROOM_DATA, by default ./data."""
    return Path(os.environ.get("DARKROOM_DATA", "data")).absolute()


def load() -> Connection:
    """The connection of this environment. Raises NotRunning."""
    names = [field.name for field in fields(Connection)]
    given = {name: os.environ[key] for name in names if (key := f"DARKROOM_{name.upper()}") in os.environ}
    if len(given) == len(names):
        return Connection(**given)
    path = Path(os.environ.get("DARKROOM_CONNECTION", data_folder() / FILENAME))
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        raise NotRunning(path) from None
    return Connection(**{name: stored[name] for name in names} | given)


def forget(data: Path) -> None:
    """Remove the files of `save`: nothing runs any more."""
    for name in (FILENAME, "env"):
        (data / name).unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)
