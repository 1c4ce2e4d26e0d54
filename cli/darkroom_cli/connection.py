"""Where a running Darkroom is: addresses and token, as `darkroom up` wrote them or as the environment says.

Every command loads this first. `DARKROOM_CONNECTION` names another file; each address can be set by its own variable.
"""

import fcntl
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType

from chassis import config

FILENAME = "connection.json"
# Beside it; the launcher holds it locked as long as it lives.
LOCK_FILENAME = "lock"


class NotRunning(Exception):
    """No connection file, or one whose launcher is gone. Field: path."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"no running Darkroom found: {path} {problem}. Start one with `darkroom up`, or set DARKROOM_DATA to its data folder."
        )
        self.path = path


class ConnectionInvalid(Exception):
    """The file is there but says no connection. Field: path."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not what `darkroom up` writes; stop `darkroom up` and start it again")
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
        """Write connection.json and, for shells, `env`, which also finds the `darkroom` command. Only their owner reads them."""
        _write_private(data / FILENAME, json.dumps(asdict(self), indent=2) + "\n")
        lines = [f"export DARKROOM_{name.upper()}={shlex.quote(value)}" for name, value in asdict(self).items()]
        lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
        _write_private(data / "env", "\n".join(lines) + "\n")


_ADDRESSES = tuple(field.name for field in fields(Connection) if field.name != "token")


def data_folder() -> Path:
    """DARKROOM_DATA, by default ./data."""
    return Path(os.environ.get("DARKROOM_DATA", "data")).absolute()


@dataclass(frozen=True)
class _Settings:
    token: str = config.setting("DARKROOM_TOKEN", "the token that callers present", default="", secret=True)


def given_token() -> str:
    """DARKROOM_TOKEN, or what is in the file that DARKROOM_TOKEN_FILE names; "" for none. Raises ConfigError."""
    return config.read(_Settings).token


class EndpointInvalid(Exception):
    """Not NAME=ADDRESS. Field: text."""

    def __init__(self, text: str) -> None:
        names = ", ".join(_ADDRESSES)
        super().__init__(
            f"{text!r} is no endpoint: expected NAME=ADDRESS with a NAME of {names}, such as trainer=127.0.0.1:50051"
        )
        self.text = text


def endpoints(texts: Sequence[str]) -> dict[str, str]:
    """Addresses by name from NAME=ADDRESS. Raises EndpointInvalid."""
    found = {}
    for text in texts:
        name, separator, address = text.partition("=")
        if name not in _ADDRESSES or not separator or not address:
            raise EndpointInvalid(text)
        found[name] = address
    return found


def load(endpoints: Mapping[str, str] = MappingProxyType({})) -> Connection:
    """The connection of this environment. endpoints: addresses by name that win over all.

    Raises NotRunning, ConnectionInvalid and ConfigError.
    """
    names = [field.name for field in fields(Connection)]
    given = {name: os.environ[key] for name in names if (key := f"DARKROOM_{name.upper()}") in os.environ} | dict(
        endpoints
    )
    if token := given_token():
        given["token"] = token
    if set(_ADDRESSES) <= set(endpoints):  # a server that wants a token will say so
        given.setdefault("token", "")
    if len(given) == len(names):
        return Connection(**given)
    path = Path(os.environ.get("DARKROOM_CONNECTION", data_folder() / FILENAME))
    try:
        stored = json.loads(path.read_text())
        found = Connection(**{name: stored[name] for name in names} | given)
    except FileNotFoundError:
        raise NotRunning(path, "does not exist") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConnectionInvalid(path) from error
    if _is_free(path.with_name(LOCK_FILENAME)):
        raise NotRunning(path, "is left from one that was killed")
    return found


def forget(data: Path) -> None:
    """Remove the files of `save`: nothing runs any more."""
    for name in (FILENAME, "env"):
        (data / name).unlink(missing_ok=True)


def _is_free(lock: Path) -> bool:
    """Whether nobody holds the lock. A connection file that was copied elsewhere has none beside it: not known."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _write_private(path: Path, text: str) -> None:
    """Replace a file in one step: nobody reads half of it, and its mode is ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
