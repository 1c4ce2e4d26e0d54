"""The checkpoints of the bucket: a list that is at most a few seconds old, and verified copies in the cache folder.

`catalogue.py` and `lora_catalogue.py` list and look up here, `pipelines.py` downloads. Manifests are immutable, so each is read once.
"""

import logging
import threading
import time
from pathlib import Path

from artifacts.checkpoints import ROOT, Checkpoints, Manifest
from artifacts.errors import ArtifactError, DigestMismatch, ManifestInvalid, NotFound, StoreError

from webui_engine.errors import ModelBroken, StoreDown

_log = logging.getLogger(__name__)


class Published:
    """Reads checkpoints; thread-safe. `listing_seconds` is how long a list is good."""

    def __init__(self, checkpoints: Checkpoints, listing_seconds: float) -> None:
        self._checkpoints = checkpoints
        self._listing_seconds = listing_seconds
        self._lock = threading.Lock()
        self._manifests: dict[str, Manifest] = {}
        self._listed_at: float | None = None
        self._stale = False

    def refresh(self) -> None:
        """The next `list` asks the bucket again, for every manifest."""
        with self._lock:
            self._listed_at = None
            self._stale = True

    def list(self, required: bool = False) -> list[Manifest]:
        """Manifests by id. A silent bucket gives the last list and a line in the log, or StoreDown if `required`."""
        with self._lock:
            now = time.monotonic()
            if self._listed_at is None or now - self._listed_at > self._listing_seconds:
                try:
                    self._manifests = self._read()
                    self._stale = False
                except StoreError as error:
                    _log.warning("checkpoints are listed as they were: %s", error)
                    if required:
                        raise StoreDown(str(error)) from error
                self._listed_at = now  # after a failure too: not every request has to wait for the bucket
            return [self._manifests[name] for name in sorted(self._manifests)]

    def download(self, manifest: Manifest, folder: Path) -> None:
        """Copy a checkpoint; what is there and right stays. Raises ModelBroken (damaged, gone), StoreDown."""
        try:
            self._checkpoints.download(manifest, folder)
        except StoreError as error:
            raise StoreDown(str(error)) from error
        except DigestMismatch as error:
            raise ModelBroken(manifest.id, str(error), _kind(manifest)) from error
        except (ArtifactError, OSError) as error:
            raise ModelBroken(manifest.id, f"copying it from the bucket failed: {error}", _kind(manifest)) from error

    def _read(self) -> dict[str, Manifest]:
        known = {} if self._stale else self._manifests
        found: dict[str, Manifest] = {}
        for name in self._checkpoints.store.list_folders(ROOT):
            try:
                found[name] = known[name] if name in known else self._checkpoints.get(name)
            except NotFound:  # being written, or just deleted
                continue
            except ManifestInvalid as error:
                _log.warning("checkpoint %r is left out: %s", name, error)
        return found


def _kind(manifest: Manifest) -> str:
    return "LoRA" if manifest.kind == "lora" else "model"
