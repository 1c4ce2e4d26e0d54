"""Whose checkpoint it is, and which process of its run may publish it.

The lease says who writes the run, but no store changes two objects at once: a process may be paused between its last look
at the lease and the write of the manifest. So the writer reserves the place of the manifest, confirms its lease, and
publishes only in place of this reservation; whoever takes the run over takes the reservation away. One that was replaced
before it confirmed is told so by the lease, one that was replaced afterwards by the store.
"""

import logging
from collections.abc import Mapping
from typing import Any

from artifacts.checkpoints import Checkpoints, CheckpointWriter, Manifest
from artifacts.errors import AlreadyExists, Conflict, NotFound

from dreambooth.errors import NotOurs
from dreambooth.lease import Lease

_log = logging.getLogger(__name__)


def is_published(checkpoints: Checkpoints, checkpoint: str, run: str) -> bool:
    """Whether this run has already published its checkpoint. Raises NotOurs if another one holds the id."""
    try:
        manifest = checkpoints.get(checkpoint)
    except NotFound:
        return False
    require_ours(manifest, run)
    return True


def take_over(checkpoints: Checkpoints, checkpoint: str, run: str, lease: Lease) -> bool:
    """Whether this run has already published; if not, no earlier process of it can do so once this has returned.

    For the process that has just got the lease, before it begins. Raises NotOurs if another run holds the id.
    """
    try:
        checkpoints.revoke(checkpoint, run, lease.token)
    except AlreadyExists:
        return is_published(checkpoints, checkpoint, run)
    return False


def publish(
    checkpoints: Checkpoints,
    writer: CheckpointWriter,
    checkpoint: str,
    run: str,
    lease: Lease,
    metrics: Mapping[str, Any],
) -> None:
    """Publish what `writer` has written, unless another process has taken the run over.

    Raises LeaseLost then, AlreadyExists if the id is published, and what the store says.
    """
    while True:
        reserved = checkpoints.reserve(checkpoint, run, lease.token)
        lease.confirm()  # after reserving: whoever takes over from now on finds the reservation
        try:
            writer.publish(metrics, reserved)
            return
        except Conflict as error:
            # By our successor, as the lease will tell, or by a process that was replaced, woke up and does not know yet.
            _log.warning("the reservation of checkpoint %r was taken away, asking the lease: %s", checkpoint, error)


def require_ours(manifest: Manifest, run: str) -> None:
    """Raise NotOurs unless the published checkpoint is this run's own work."""
    owner = f"sessions/{manifest.session}/runs/{manifest.run}" if manifest.run else "somebody else"
    if owner != run:
        raise NotOurs(f"checkpoint {manifest.id!r} was already published by {owner}, not by {run}; choose another id")
