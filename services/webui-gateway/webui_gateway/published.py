"""The manifests of published checkpoints, read from the bucket. Adapter over artifacts; `gateway` asks it at every refresh."""

import asyncio
import logging
import time
from collections.abc import Collection
from typing import Final

from artifacts.checkpoints import ROOT, Checkpoints
from artifacts.errors import ArtifactError, InvalidName, ManifestInvalid, NotFound
from artifacts.manifest import Manifest

logger = logging.getLogger("webui_gateway.published")

# A slow or silent bucket delays no generation longer than this: the manifests that are known serve on.
_WAIT_SECONDS: Final = 2.0
# An id may be deleted and published again; manifests never change otherwise.
_KEPT_SECONDS: Final = 30.0


class Published:
    """What is published, as far as is known."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._manifests: dict[str, Manifest] = {}
        self._invalid: set[str] = set()
        self._all_read = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def manifests(self) -> Collection[Manifest]:
        """Read what is new and return all; without the bucket, what was known."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(asyncio.to_thread(self._read))
        await asyncio.wait((self._reading,), timeout=_WAIT_SECONDS)
        return self._manifests.values()

    def _read(self) -> None:
        now = time.monotonic()
        is_stale = now - self._all_read > _KEPT_SECONDS
        known = {} if is_stale else self._manifests
        try:
            names = list(self._checkpoints.store.list_folders(ROOT))
            found = {name: known.get(name) or self._get(name) for name in sorted(names)}
        except ArtifactError as error:
            logger.warning("published checkpoints cannot be listed: %s", error)
            return
        self._manifests = {name: manifest for name, manifest in found.items() if manifest is not None}
        self._all_read = now if is_stale else self._all_read

    def _get(self, name: str) -> Manifest | None:
        """None while it is being written, for a folder that is not ours, and for one that cannot be read."""
        try:
            return self._checkpoints.get(name)
        except (NotFound, InvalidName):
            return None
        except ManifestInvalid as error:
            if name not in self._invalid:
                logger.warning("checkpoint %s is left out: %s", name, error)
            self._invalid.add(name)
            return None
