"""Whose checkpoint it is. Asked before the slow start, and again if publishing found the id taken."""

from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.errors import NotFound

from dreambooth.errors import NotOurs


def is_published(checkpoints: Checkpoints, checkpoint: str, run: str) -> bool:
    """Whether this run has already published its checkpoint. Raises NotOurs if another one holds the id."""
    try:
        manifest = checkpoints.get(checkpoint)
    except NotFound:
        return False
    require_ours(manifest, run)
    return True


def require_ours(manifest: Manifest, run: str) -> None:
    """Raise NotOurs unless the published checkpoint is this run's own work."""
    owner = f"sessions/{manifest.session}/runs/{manifest.run}" if manifest.run else "somebody else"
    if owner != run:
        raise NotOurs(f"checkpoint {manifest.id!r} was already published by {owner}, not by {run}; choose another id")
