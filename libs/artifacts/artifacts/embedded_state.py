"""What the folder of an embedded store remembers between starts: credentials, ports and its identity."""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from artifacts import ports
from artifacts.errors import ManifestInvalid

FILE_NAME = "embedded-store.json"


@dataclass(frozen=True)
class State:
    """instance: a random word that also lies in the store, to tell this server from any other."""

    access_key: str
    secret_key: str
    instance: str
    ports: ports.Ports


def load(folder: Path) -> State:
    """The folder's state, made up on the first call. Raises ManifestInvalid if the file was damaged."""
    file = folder / FILE_NAME
    if not file.exists():
        state = State(secrets.token_hex(10), secrets.token_hex(20), secrets.token_hex(8), ports.choose())
        save(folder, state)
        return state
    try:
        record = json.loads(file.read_bytes())
        taken = ports.Ports(**record["ports"])
        return State(record["access_key"], record["secret_key"], record["instance"], taken)
    except (ValueError, KeyError, TypeError) as error:
        # The credentials can be made anew without loss; which objects are ours cannot, so a person decides.
        advice = f"cannot be read ({error!r}); remove it to start with new credentials, the objects stay"
        raise ManifestInvalid(str(file), (advice,)) from error


def save(folder: Path, state: State) -> None:
    """Write the state in one step, readable by its owner only."""
    part = folder / f".{FILE_NAME}.part"
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(asdict(state), out, indent=2)
    os.replace(part, folder / FILE_NAME)
