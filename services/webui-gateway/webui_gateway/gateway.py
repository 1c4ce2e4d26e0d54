"""The gateway's work without any wire: registries kept fresh, requests checked, then queued for the back ends that can.

`http_api` and `server` turn requests into A1111 bodies and call `submit`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from webui_gateway import requests
from webui_gateway.backends import Backend
from webui_gateway.control_nets import ControlNetRegistry
from webui_gateway.errors import (
    BackendAway,
    BackendRefused,
    GatewayError,
    ModelUnavailable,
    NoBackend,
    NoBackendFits,
    RequestInvalid,
    UnknownModel,
    UnknownName,
)
from webui_gateway.job import Job, Outcome
from webui_gateway.jobs import JobQueue
from webui_gateway.loras import LoraLine, LoraRegistry
from webui_gateway.models import Listing, Model, ModelRegistry, check_precision
from webui_gateway.published import Published

logger = logging.getLogger("webui_gateway")

TXT2IMG: Final = "/sdapi/v1/txt2img"
IMG2IMG: Final = "/sdapi/v1/img2img"
# A listing older than this is read again before it is used.
FRESH_SECONDS: Final = 1.0
# While nobody asks, so that the metrics and the log tell when a back end goes.
_IDLE_REFRESH_SECONDS: Final = 5.0


class _Lists(NamedTuple):
    """What one back end has."""

    models: list[Listing]
    control_nets: list[str]
    loras: list[LoraLine]


class Gateway:
    """Back ends, registries and queue."""

    def __init__(
        self,
        backends: Sequence[Backend],
        models: ModelRegistry,
        control_nets: ControlNetRegistry,
        published: Published,
        jobs: JobQueue,
    ) -> None:
        self.backends = backends
        self.models = models
        self.control_nets = control_nets
        self.loras = LoraRegistry()
        self.jobs = jobs
        self._published = published
        self._listings: dict[str, _Lists] = {}
        self._refreshed = 0.0
        self._reread = 0.0
        self._refreshing = asyncio.Lock()
        self._idle: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to work. Back ends may come up later."""
        self.jobs.start()
        self._idle = asyncio.create_task(self._refresh_idly())

    async def close(self) -> None:
        """Stop the queue and close the connections."""
        if self._idle is not None:
            self._idle.cancel()
            await asyncio.gather(self._idle, return_exceptions=True)
        await self.jobs.stop()
        for backend in self.backends:
            await backend.close()

    async def refresh(self, force: bool = False) -> None:
        """Read the listings of the back ends and of the bucket, at most once a second unless forced."""
        async with self._refreshing:
            if not force and time.monotonic() - self._refreshed < FRESH_SECONDS:
                return
            manifests, listings = await asyncio.gather(
                self._published.manifests(),
                asyncio.gather(*(self._listing(backend) for backend in self.backends)),
            )
            self._listings = {backend.url: found for backend, found in zip(self.backends, listings, strict=True)}
            self.models.refresh({url: found.models for url, found in self._listings.items()}, manifests)
            self.control_nets.refresh({url: found.control_nets for url, found in self._listings.items()})
            loras = {url: found.loras for url, found in self._listings.items()}
            self.loras.refresh(loras, manifests, self.models.width)
            self._refreshed = time.monotonic()

    def alive(self) -> list[Backend]:
        """Back ends that answered last time. Raises NoBackend if none did."""
        alive = [backend for backend in self.backends if backend.alive]
        if not alive:
            raise NoBackend(backend.url for backend in self.backends)
        return alive

    @property
    def num_alive(self) -> int:
        """How many back ends answered last time."""
        return sum(backend.alive for backend in self.backends)

    async def ask(self, path: str, params: dict[str, str] | None = None) -> Any:
        """JSON of a GET from the first back end that answers and has this route. Raises NoBackend, BackendRefused."""
        return await self._from_first(lambda backend: backend.get(path, params))

    async def have_done(self, path: str, body: Any) -> Any:
        """JSON of a POST, done by the first back end that answers and has this route. Raises NoBackend, BackendRefused."""
        return await self._from_first(lambda backend: backend.post(path, body))

    async def ask_all(self, path: str) -> list[Any]:
        """JSON of a GET from each back end that answers and has this route. Raises NoBackend if none answers."""
        await self.refresh()
        found = await asyncio.gather(*(backend.get(path) for backend in self.alive()), return_exceptions=True)
        heard = [answer for answer in found if not isinstance(answer, BackendAway)]
        if not heard:
            raise NoBackend(backend.url for backend in self.backends)
        answers = [answer for answer in heard if not _has_no_such_route(answer)]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def tell_all(self, path: str, body: Any) -> Any:
        """POST to every back end that is alive; the answer of the first. Raises what one of them says."""
        await self.refresh()
        answers = await asyncio.gather(*(backend.post(path, body) for backend in self.alive()))
        return answers[0]

    async def model(self, name: str) -> Model:
        """The model of a name that a back end can draw with ("": the selected one). Raises UnknownModel, ModelUnavailable."""
        await self.refresh()
        try:
            return self.models.usable(name)
        except (UnknownModel, ModelUnavailable):
            # It may have been published or copied a moment ago, and the back ends have not looked since.
            await self._read_again()
            return self.models.usable(name)

    async def submit(self, path: str, body: Mapping[str, Any], job_id: str = "") -> tuple[Job, Outcome]:
        """Check an A1111 body and queue it. Raises what the checks say, NoBackend, QueueFull.

        The model is resolved here and sent with the request, so that it cannot change while the job waits.
        """
        wish = requests.understood(body)
        await self.refresh()
        self.alive()
        model = await self.model(wish.checkpoint)
        if self.loras.lacks(wish.body):
            await self._read_again()
        bodies = self._bodies(path, wish, model)
        if wish.keep_checkpoint:
            self.models.select(model.name)
        return self.jobs.submit(path, bodies, model.title, job_id or wish.job_id)

    async def _from_first(self, ask: Callable[[Backend], Awaitable[Any]]) -> Any:
        await self.refresh()
        failure: GatewayError = NoBackend(backend.url for backend in self.backends)
        for backend in self.alive():
            try:
                return await ask(backend)
            except BackendAway as error:
                logger.warning("%s", error)
            except BackendRefused as error:
                if not _has_no_such_route(error):
                    raise
                failure = error
        raise failure

    def _bodies(self, path: str, wish: requests.Wish, model: Model) -> dict[str, dict[str, Any]]:
        """The request for each back end that can draw it. If none can, it is refused with what they lack."""
        body = requests.sized(wish.body, model)
        having = [backend for backend in self.alive() if backend.url in model.titles]
        check_precision(model, wish.precision, {name for each in having for name in each.abilities.precisions})
        bodies: dict[str, dict[str, Any]] = {}
        reasons: dict[str, GatewayError] = {}
        for backend in having:
            if wish.precision and wish.precision not in backend.abilities.precisions:
                continue
            try:
                # The control net first: it is refused with both names even where no back end has the extension.
                named = requests.addressed(body, model, backend.url, self.models, self.control_nets)
                named = self.loras.addressed(named, model, backend.url)
                backend.abilities.check_scripts(named, path.rpartition("/")[2])
                bodies[backend.url] = backend.abilities.resolved(named)
            except GatewayError as error:
                reasons[backend.url] = error
        if not bodies:
            raise _refusal(model, reasons) if reasons else NoBackend(sorted(model.titles))
        return bodies

    async def select(self, settings: Mapping[str, Any]) -> None:
        """Set options: the model is the gateway's own choice, the others go to every back end.

        Raises UnknownModel and ModelUnavailable before anything is changed, and what a back end refuses.
        """
        others = dict(settings)
        wanted = requests.checkpoint_of(others)
        await self.refresh(force=True)
        model = await self.model(wanted) if wanted else None
        if others:
            await self.tell_all("/sdapi/v1/options", others)
        elif model is None and settings:
            raise RequestInvalid("sd_model_checkpoint is empty; name a model")
        if model is not None:
            self.models.select(model.name)

    async def _listing(self, backend: Backend) -> _Lists:
        """Models, control nets and LoRAs of one back end; nothing if it does not answer."""
        try:
            if not backend.alive:
                await backend.learn()
            found = _Lists(await backend.models(), await backend.control_net_titles(), await backend.loras())
        except GatewayError as error:
            is_busy = isinstance(error, BackendAway) and error.timed_out and self.jobs.is_drawing(backend.url)
            if backend.alive and is_busy:
                return self._listings[backend.url]
            if str(error) != backend.trouble:
                logger.warning("%s", error)
            backend.alive, backend.trouble = False, str(error)
            return _Lists([], [], [])
        if not backend.alive:
            logger.info("back end %s answers", backend.url, extra={"num_models": len(found.models)})
        backend.alive, backend.trouble = True, ""
        return found

    async def _read_again(self) -> None:
        """Let the back ends look for new models and LoRAs, but those that draw: A1111 would answer only when it is done."""
        if time.monotonic() - self._reread > FRESH_SECONDS:
            idle = [backend for backend in self.backends if backend.alive and not self.jobs.is_drawing(backend.url)]
            answers = await asyncio.gather(*(backend.look_again() for backend in idle), return_exceptions=True)
            for answer in answers:
                if isinstance(answer, Exception):
                    logger.warning("%s", answer)
            self._reread = time.monotonic()
        await self.refresh(force=True)

    async def _refresh_idly(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception:  # the next round may succeed, and without rounds nobody would notice a dead back end
                logger.exception("the registries could not be refreshed")
            await asyncio.sleep(_IDLE_REFRESH_SECONDS)


def _refusal(model: Model, reasons: Mapping[str, GatewayError]) -> GatewayError:
    """One error for what each back end that has the model lacks; of a name that none knows, the nearest that any knows."""
    first, *others = reasons.values()
    unknown = [each for each in reasons.values() if isinstance(each, UnknownName)]
    if len(unknown) == len(reasons) and len({(type(each), each.name) for each in unknown}) == 1:
        known = {name for each in unknown for name in each.known}
        return type(unknown[0])(unknown[0].name, known, f"the back ends that have model {model.name}")
    if all(str(each) == str(first) for each in others):
        return first
    return NoBackendFits(model.name, reasons)


def _has_no_such_route(answer: object) -> bool:
    """A1111 without an extension, or an old one."""
    return isinstance(answer, BackendRefused) and answer.status == 404
