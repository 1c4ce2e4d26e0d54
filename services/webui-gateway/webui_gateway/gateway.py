"""The gateway's work without any wire: registries kept fresh, requests checked, then queued for the back ends that can.

`http_api` and `server` turn requests into A1111 bodies and call `submit`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from typing import Any

from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.errors import ArtifactError

from webui_gateway.backends import UNREACHABLE, Backend
from webui_gateway.control_nets import ControlNetRegistry
from webui_gateway.errors import BackendFailed, ControlNetMismatch, NoBackend, RequestInvalid, UnknownSampler
from webui_gateway.jobs import Job, JobQueue
from webui_gateway.models import Listing, Model, ModelRegistry, check_precision, check_size

logger = logging.getLogger("webui_gateway")

TXT2IMG, IMG2IMG = "/sdapi/v1/txt2img", "/sdapi/v1/img2img"
# A listing older than this is read again before it is used.
FRESH_SECONDS = 1.0
_MAX_SEED = 2**32 - 1


class Gateway:
    """Back ends, registries and queue."""

    def __init__(
        self,
        backends: list[Backend],
        models: ModelRegistry,
        control_nets: ControlNetRegistry,
        checkpoints: Checkpoints,
        max_queue: int,
    ) -> None:
        self.backends = backends
        self.models = models
        self.control_nets = control_nets
        self.jobs = JobQueue(backends, max_queue, UNREACHABLE)
        self._checkpoints = checkpoints
        self._manifests: dict[str, Manifest] = {}
        self._refreshed = 0.0
        self._refreshing = asyncio.Lock()

    async def start(self) -> None:
        """Begin to work. Back ends may come up later."""
        self.jobs.start()

    async def close(self) -> None:
        """Stop the queue and close the connections."""
        await self.jobs.stop()
        for backend in self.backends:
            await backend.close()

    async def refresh(self, force: bool = False) -> None:
        """Read the listings of the back ends and of the bucket, at most once a second."""
        async with self._refreshing:
            if not force and time.monotonic() - self._refreshed < FRESH_SECONDS:
                return
            listings = await asyncio.gather(*(self._listing(backend) for backend in self.backends))
            await asyncio.to_thread(self._read_manifests)
            self.models.refresh(
                {backend.url: lines for backend, (lines, _) in zip(self.backends, listings, strict=True)},
                self._manifests.values(),
            )
            self.control_nets.refresh(
                {backend.url: titles for backend, (_, titles) in zip(self.backends, listings, strict=True)}
            )
            self._refreshed = time.monotonic()

    def alive(self) -> list[Backend]:
        """Back ends that answered last time. Raises NoBackend if none did."""
        alive = [backend for backend in self.backends if backend.alive]
        if not alive:
            raise NoBackend(backend.url for backend in self.backends)
        return alive

    async def submit(self, path: str, body: Mapping[str, Any], precision: str = "", job_id: str = "") -> Job:
        """Check an A1111 body and queue it. Raises what the checks say, NoBackend, QueueFull.

        The model is resolved here and sent with the request, so that it cannot change while the job waits.
        """
        await self.refresh()
        self.alive()
        overrides = dict(body.get("override_settings") or {})
        model = self.models.usable(str(overrides.get("sd_model_checkpoint") or ""))
        body = {**body, "seed": fixed_seed(body.get("seed", -1))}
        if path == TXT2IMG or body.get("width") or body.get("height"):
            body["width"] = _edge(body, "width", model)
            body["height"] = _edge(body, "height", model)
            check_size(model, body["width"], body["height"])
        able = [backend for backend in self.alive() if backend.url in model.backends]
        if not able:
            raise NoBackend(sorted(model.backends))
        check_precision(model, precision, {name for backend in able for name in backend.precisions})
        able = [backend for backend in able if not precision or precision in backend.precisions]
        self._check_sampler(body, able)
        bodies = {
            backend.url: {
                **body,
                "override_settings": {**overrides, "sd_model_checkpoint": model.title},
                "alwayson_scripts": self._with_titles(body.get("alwayson_scripts") or {}, model, backend.url),
            }
            for backend in able
        }
        return self.jobs.submit(path, bodies, model.title, job_id or str(body.get("force_task_id") or ""))

    async def _listing(self, backend: Backend) -> tuple[list[Listing], list[str]]:
        """Models and control nets of one back end; nothing if it does not answer."""
        try:
            if not backend.alive:
                await backend.learn()
            found = await backend.models(), await backend.control_net_titles()
        except (*UNREACHABLE, BackendFailed) as error:
            if backend.alive:
                logger.warning("back end %s does not answer: %r", backend.url, error)
            backend.alive = False
            return [], []
        backend.alive = True
        return found

    def _read_manifests(self) -> None:
        """Manifests never change, so only new ones are read; without the store the known ones stay."""
        try:
            self._manifests = {manifest.id: manifest for manifest in self._checkpoints.list()}
        except ArtifactError as error:
            logger.warning("published checkpoints cannot be listed: %s", error)

    def _check_sampler(self, body: Mapping[str, Any], able: list[Backend]) -> None:
        """A1111 silently draws with another sampler when it does not know one; this refuses it."""
        name = body.get("sampler_name") or body.get("sampler_index")
        if not name:
            return
        known = frozenset[str]().union(*(backend.samplers for backend in able))
        by_case = {sampler.lower() for sampler in known}
        # "DPM++ 2M Karras" means sampler and schedule together.
        candidates = {str(name).lower(), str(name).lower().rsplit(" ", 1)[0]}
        if not candidates & by_case:
            raise UnknownSampler(str(name), known)

    def _with_titles(self, scripts: Mapping[str, Any], model: Model, url: str) -> dict[str, Any]:
        """The always-on scripts with control nets resolved to what this back end calls them."""
        resolved = dict(scripts)
        for script in scripts:
            if script.lower() != "controlnet":
                continue
            units = scripts[script].get("args") if isinstance(scripts[script], Mapping) else None
            if not isinstance(units, list):
                raise RequestInvalid("alwayson_scripts.controlnet.args must be a list of units")
            resolved[script] = {**scripts[script], "args": [self._with_title(unit, model, url) for unit in units]}
        return resolved

    def _with_title(self, unit: Any, model: Model, url: str) -> Any:
        wanted = unit.get("model") if isinstance(unit, Mapping) else None
        if not wanted or wanted == "None":
            return unit
        net = self.control_nets.resolve(str(wanted), model)
        if url not in net.titles:
            raise ControlNetMismatch(
                model.name, net.name, "no back end that has the model has the control net's weights"
            )
        return {**unit, "model": net.titles[url]}


def fixed_seed(seed: Any) -> int:
    """The seed, or a random one for -1, so that a repeat on another back end draws the same."""
    if seed is None or seed == "" or int(seed) == -1:
        return random.SystemRandom().randint(0, _MAX_SEED)
    return int(seed)


def _edge(body: Mapping[str, Any], name: str, model: Model) -> int:
    value = body.get(name)
    if value in (None, 0):
        return model.spec.native_px
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestInvalid(f"{name} must be a whole number of pixels, found {value!r}")
    return value
