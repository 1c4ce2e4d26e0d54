"""The engine behind the routes: the catalogue, the current options and model, the queue.

`app.py` makes one; the routes call it. It imports torch only inside the worker thread, behind the open port.
"""

import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore

from webui_engine import options, planning
from webui_engine.catalogue import Catalogue, Model
from webui_engine.config import EngineConfig
from webui_engine.errors import Cancelled, ModelBroken, NotReady, RequestInvalid
from webui_engine.metrics import Metrics
from webui_engine.options import Options
from webui_engine.planning import Limits, Plan
from webui_engine.progress import Progress
from webui_engine.published import Published
from webui_engine.schemas import GenerationRequest
from webui_engine.worker import Job, Worker

if TYPE_CHECKING:
    from webui_engine.pipelines import Loaded, Models

_STOP_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class Engine:
    """One process's models. `state` is "starting", "ready", "failed" or "stopping"."""

    def __init__(self, config: EngineConfig, metrics: Metrics) -> None:
        self.config = config
        self.metrics = metrics
        self.progress = Progress()
        self.worker = Worker(config.max_queue)
        self.state: Literal["starting", "ready", "failed", "stopping"] = "starting"
        published = Published(Checkpoints(ObjectStore(config.store)), config.listing_seconds) if config.store else None
        self._published = published
        self.catalogue = Catalogue(
            config.model_folders, config.controlnet_folders, config.cache_folder, published, config.lora_folders
        )
        self._options = Options()
        self._current: Model | None = None
        self._models: Models | None = None
        self._limits = Limits(config.max_image_pixels, config.max_images)

    @property
    def options(self) -> Options:
        """The options as they are now."""
        return self._options

    @property
    def device(self) -> str:
        """ "cpu" or "cuda"."""
        return str(self._memory().placement.device.type)

    @property
    def precision(self) -> str:
        """ "fp32", "fp16" or "bf16": what models run in."""
        return self._memory().placement.precision

    def start(self) -> None:
        """Start the worker; its first job imports torch, reads the catalogue and loads a model."""
        self.worker.start()
        self.worker.submit("start", self._load)

    def drain(self) -> None:
        """Take no new requests; those that are queued or running go on."""
        if self.state in ("starting", "ready"):
            self.state = "stopping"

    def stop(self) -> None:
        """Drop what waits, interrupt what runs, end the worker."""
        self.drain()
        if not self.worker.stop(0):
            self.progress.interrupt()
            self.worker.stop(_STOP_SECONDS)

    def check_ready(self) -> None:
        """Raise NotReady unless requests can be served."""
        if self.state != "ready":
            raise NotReady(self.state)

    def submit_generation(self, request: GenerationRequest) -> Job:
        """Check a request and queue it; the job's result is the JSON of the reply."""
        plan = planning.make_plan(request, self.catalogue, self._options, self._limits)
        task_id = request.force_task_id or f"task({secrets.token_hex(7)})"
        if self.worker.state(task_id) in ("active", "queued"):
            raise RequestInvalid("force_task_id", f"{task_id!r} is already waiting or running")
        return self.worker.submit(task_id, lambda: self._generate(task_id, request, plan))

    def submit_options(self, values: Mapping[str, Any]) -> Job:
        """Check new options and queue them, so that they hold for the requests that come after. A model is loaded now."""
        self._options.changed(values, "options")
        name = options.model_name(values, "options")
        model = self.catalogue.find(name, "options.sd_model_checkpoint") if name else None
        return self.worker.submit(f"options({secrets.token_hex(7)})", lambda: self._set_options(values, model))

    def submit_unload(self) -> Job:
        """Queue dropping all models from memory."""
        return self.worker.submit(f"unload({secrets.token_hex(7)})", lambda: self._memory().unload())

    def submit_reload(self) -> Job:
        """Queue loading the current model again."""
        return self.worker.submit(f"reload({secrets.token_hex(7)})", self._current_model)

    def cancel(self, job: Job) -> None:
        """The client has gone: drop its job, or stop it after the step."""
        if not self.worker.cancel(job):
            self.progress.interrupt(job.id)

    def _load(self) -> None:
        try:
            began = time.monotonic()
            from webui_engine import generate, pipelines  # noqa: F401 - seconds of imports, behind the open port

            self.catalogue.refresh()
            placement = pipelines.Placement.choose(self.config.device, self.config.precision)
            self._models = pipelines.Models(placement, self.catalogue, self._published, self.config.models_in_memory)
            self._load_first()
            if self.state == "starting":
                self.state = "ready"
            _log.info(
                "ready",
                extra={"seconds": round(time.monotonic() - began, 1), "model": self._options.sd_model_checkpoint},
            )
        except Exception:
            self.state = "failed"
            _log.exception("the engine cannot start")
            raise

    def _load_first(self) -> None:
        """Load the default model, else the first that can be loaded. Without any the engine waits for checkpoints."""
        if self.config.default_model:
            self._use(self.catalogue.find(self.config.default_model, "DARKROOM_DEFAULT_MODEL"))
            return
        for model in self.catalogue.models():
            try:
                self._use(model)
                return
            except ModelBroken as error:
                _log.error("%s", error)
        _log.warning("there is no model yet; publish a checkpoint or set DARKROOM_MODELS")

    def _memory(self) -> "Models":
        if self._models is None:
            raise NotReady(self.state)
        return self._models

    def _use(self, model: Model) -> "Loaded":
        """Make a model current. If it cannot be loaded, the one before stays."""
        loaded = self._memory().get(model)
        self._current = model
        self._options = replace(self._options, sd_model_checkpoint=model.title, sd_checkpoint_hash=model.sha256)
        return loaded

    def _current_model(self) -> "Loaded":
        if self._current is None:
            models = self.catalogue.models()
            if not models:
                raise RequestInvalid(
                    "sd_model_checkpoint", "there is no model; publish a checkpoint or set DARKROOM_MODELS"
                )
            return self._use(models[0])
        return self._memory().get(self._current)

    def _set_options(self, values: Mapping[str, Any], model: Model | None) -> None:
        if model is not None:
            self._use(model)  # first: if it fails, nothing has changed
        self._options = self._options.changed(values, "options")

    def _generate(self, task_id: str, request: GenerationRequest, plan: Plan) -> dict[str, Any]:
        from webui_engine import generate, reply

        effective = self._options.changed(plan.override, "override_settings")
        clip_skip = effective.CLIP_stop_at_last_layers
        self.progress.begin(task_id, plan.n_iter)
        began = time.monotonic()
        try:
            if self.worker.is_abandoned:  # between the queue and `begin` an interrupt finds nothing to stop
                raise Cancelled
            loaded = self._memory().get(plan.model) if plan.model else self._current_model()
            if plan.keep_override:
                self._options = effective
                self._use(loaded.model)
            drawn = generate.draw(plan, loaded, self._memory(), clip_skip, self.progress)
            self.metrics.images.inc(len(drawn.images))
            return reply.build(request, plan, drawn, loaded.model, clip_skip, request.send_images)
        finally:
            self.metrics.generation_seconds.observe(time.monotonic() - began)
            self.progress.end()
