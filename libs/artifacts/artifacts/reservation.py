"""A reservation: who publishes next, written where the manifest will be, so that the store can refuse everybody else.

A run has several processes in turn, and one that was replaced may wake up. It reserves the place right before it
publishes, and its manifest goes there only in place of that very reservation (If-Match). Whoever replaces it puts
another reservation there, if there is one, and with that the old one's manifest is refused. No two reservations
are equal, so a version that was replaced never comes back.

To readers, and to writers of other runs, a reservation is nothing: there is no checkpoint yet. `checkpoints` and
`checkpoint_writer` call this.
"""

import json
import secrets

from artifacts import records
from artifacts.errors import AlreadyExists, NotFound
from artifacts.store import ObjectStore

_FIELD = "reserved_for"
_JSON = "application/json"


def encode(run: str, token: int) -> bytes:
    """A new reservation. run: resource name of the run. token: number of its writer; both are for people to read."""
    return records.encode(
        {"schema": records.SCHEMA, _FIELD: {"run": run, "token": token, "nonce": secrets.token_hex(8)}}
    )


def is_reservation(data: bytes) -> bool:
    """Whether these bytes of a manifest.json are a reservation, and so no manifest."""
    try:
        record = json.loads(data)
    except ValueError:  # a damaged manifest: whoever reads it says so
        return False
    return isinstance(record, dict) and _FIELD in record


def find(store: ObjectStore, key: str, checkpoint_id: str) -> str:
    """The ETag of the reservation at `key`, "" if nothing is there. Raises AlreadyExists for anything else."""
    try:
        etag = store.stat(key).etag  # not newer than what is read now: a swap on it proves that they belong together
        data = store.get(key)
    except NotFound:
        return ""
    if not is_reservation(data):
        raise AlreadyExists("checkpoint", checkpoint_id)
    return etag


def swap(store: ObjectStore, key: str, data: bytes, etag: str) -> str:
    """Write `data` in place of the version `etag`, or of nothing if that is ""; its ETag.

    Raises Conflict, or AlreadyExists where nothing was expected.
    """
    if etag:
        return store.replace(key, data, etag, _JSON).etag
    return store.put_if_absent(key, data, _JSON).etag
