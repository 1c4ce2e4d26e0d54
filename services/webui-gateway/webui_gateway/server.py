"""The gateway on gRPC: registries and generation; the A1111 API on HTTP is in `http_api`."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from artifacts import errors as store_errors
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from chassis.errors import ErrorRule, ErrorTable
from chassis.metrics import process_registry
from chassis.server import Binding, Server
from darkroom.webui.v1 import generation_pb2, generation_pb2_grpc, registry_pb2, registry_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from prometheus_client import CollectorRegistry

from webui_gateway import errors, folders, paging
from webui_gateway.backends import Backend
from webui_gateway.config import GatewayConfig
from webui_gateway.control_nets import ControlNet, ControlNetRegistry
from webui_gateway.gateway import IMG2IMG, TXT2IMG, Gateway
from webui_gateway.job import Job, State
from webui_gateway.jobs import JobQueue
from webui_gateway.metrics import Metrics
from webui_gateway.models import Model, ModelRegistry
from webui_gateway.published import Published

if TYPE_CHECKING:
    import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

MODEL_SERVICE = registry_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
CONTROL_NET_SERVICE = registry_pb2.DESCRIPTOR.services_by_name["ControlNetService"].full_name
GENERATION_SERVICE = generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name

ERRORS: ErrorTable = {
    errors.UnknownModel: ErrorRule(StatusCode.NOT_FOUND, "MODEL_UNKNOWN"),
    errors.UnknownControlNet: ErrorRule(StatusCode.NOT_FOUND, "CONTROL_NET_UNKNOWN"),
    errors.UnknownLora: ErrorRule(StatusCode.NOT_FOUND, "LORA_UNKNOWN"),
    errors.UnknownJob: ErrorRule(StatusCode.NOT_FOUND, "GENERATION_UNKNOWN"),
    errors.UnknownSampler: ErrorRule(StatusCode.INVALID_ARGUMENT, "SAMPLER_UNKNOWN"),
    errors.UnknownScheduler: ErrorRule(StatusCode.INVALID_ARGUMENT, "SCHEDULER_UNKNOWN"),
    errors.UnknownScript: ErrorRule(StatusCode.FAILED_PRECONDITION, "SCRIPT_UNKNOWN"),
    errors.RequestInvalid: ErrorRule(StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
    errors.ResolutionUnsupported: ErrorRule(StatusCode.FAILED_PRECONDITION, "RESOLUTION_UNSUPPORTED"),
    errors.PrecisionUnsupported: ErrorRule(StatusCode.FAILED_PRECONDITION, "PRECISION_UNSUPPORTED"),
    errors.ControlNetMismatch: ErrorRule(StatusCode.FAILED_PRECONDITION, "CONTROL_NET_MISMATCH"),
    errors.LoraMismatch: ErrorRule(StatusCode.FAILED_PRECONDITION, "LORA_MISMATCH"),
    errors.LoraUnavailable: ErrorRule(StatusCode.FAILED_PRECONDITION, "LORA_UNAVAILABLE"),
    errors.ModelUnavailable: ErrorRule(StatusCode.FAILED_PRECONDITION, "MODEL_UNAVAILABLE"),
    errors.ControlNetUnavailable: ErrorRule(StatusCode.FAILED_PRECONDITION, "CONTROL_NET_UNAVAILABLE"),
    errors.NoBackendFits: ErrorRule(StatusCode.FAILED_PRECONDITION, "NO_BACKEND_FITS"),
    errors.QueueFull: ErrorRule(StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_seconds=5),
    errors.NoBackend: ErrorRule(StatusCode.UNAVAILABLE, "NO_BACKEND", retry_seconds=5),
    errors.Cancelled: ErrorRule(StatusCode.CANCELLED, "CANCELLED"),
    errors.BackendAway: ErrorRule(StatusCode.UNAVAILABLE, "BACKEND_AWAY", retry_seconds=5),
    errors.Stopping: ErrorRule(StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_seconds=5),
    errors.BackendRefused: ErrorRule(StatusCode.INVALID_ARGUMENT, "BACKEND_REFUSED"),
    errors.BackendFailed: ErrorRule(StatusCode.INTERNAL, "BACKEND_FAILED"),
    paging.PageTokenInvalid: ErrorRule(StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"),
    store_errors.StoreUnavailable: ErrorRule(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", retry_seconds=5),
    store_errors.AccessDenied: ErrorRule(StatusCode.FAILED_PRECONDITION, "STORE_ACCESS_DENIED"),
    store_errors.StoreError: ErrorRule(StatusCode.FAILED_PRECONDITION, "STORE_REJECTED"),
}


class ModelServicer(registry_pb2_grpc.ModelServiceServicer):
    """The calls of ModelService."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def ListModels(
        self, request: registry_pb2.ListModelsRequest, context: Context
    ) -> registry_pb2.ListModelsResponse:
        await self._gateway.refresh(force=not request.page_token)
        page, token = paging.page(self._gateway.models.all(), request.page_size, request.page_token)
        return registry_pb2.ListModelsResponse(models=map(to_model, page), next_page_token=token)

    async def GetModel(self, request: registry_pb2.GetModelRequest, context: Context) -> registry_pb2.Model:
        await self._gateway.refresh(force=True)
        return to_model(self._gateway.models.find(request.name))


class ControlNetServicer(registry_pb2_grpc.ControlNetServiceServicer):
    """The calls of ControlNetService."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def ListControlNets(
        self, request: registry_pb2.ListControlNetsRequest, context: Context
    ) -> registry_pb2.ListControlNetsResponse:
        await self._gateway.refresh(force=not request.page_token)
        page, token = paging.page(self._gateway.control_nets.all(), request.page_size, request.page_token)
        return registry_pb2.ListControlNetsResponse(control_nets=map(self._to_control_net, page), next_page_token=token)

    async def ResolveControlNet(
        self, request: registry_pb2.ResolveControlNetRequest, context: Context
    ) -> registry_pb2.ControlNet:
        await self._gateway.refresh()
        model = self._gateway.models.find(request.model)
        return self._to_control_net(self._gateway.control_nets.resolve(request.control_net, model))

    def _to_control_net(self, net: ControlNet) -> registry_pb2.ControlNet:
        models = self._gateway.models.all()
        return registry_pb2.ControlNet(
            name=f"controlNets/{net.name}",
            kind=net.kind,
            architecture=net.architecture,
            base_models=[
                model.name for model in models if net.width and not model.checkpoint and model.spec.width == net.width
            ],
            available=net.available,
        )


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """The calls of GenerationService."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        path = IMG2IMG if request.init_image else TXT2IMG
        job, outcome = await self._gateway.submit(path, to_body(request), request.request_id)
        try:
            async for _ in self._gateway.jobs.follow(job):
                if not job.final:
                    yield generation_pb2.GenerateResponse(id=job.id, progress=to_progress(self._gateway, job))
            yield generation_pb2.GenerateResponse(id=job.id, result=to_result(job, await outcome))
        finally:
            if not job.final:  # The client went away.
                self._gateway.jobs.cancel(job.id)

    async def CancelGeneration(
        self, request: generation_pb2.CancelGenerationRequest, context: Context
    ) -> generation_pb2.CancelGenerationResponse:
        return generation_pb2.CancelGenerationResponse(cancelled=self._gateway.jobs.cancel(request.id))


def to_model(model: Model) -> registry_pb2.Model:
    """The wire form of a registry entry."""
    spec = model.spec
    return registry_pb2.Model(
        name=f"models/{model.name}",
        title=model.title,
        architecture=spec.architecture,
        prediction_type=spec.prediction_type,
        native_resolution_px=spec.native_px,
        min_resolution_px=spec.min_px,
        max_resolution_px=spec.max_px,
        resolution_step_px=spec.step_px,
        precisions=spec.precisions,
        available=model.available,
        checkpoint=model.checkpoint,
        base_model=model.base_model,
        sha256=model.sha256,
    )


def to_body(request: generation_pb2.GenerateRequest) -> dict[str, Any]:
    """The A1111 request that means the same."""
    body: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "width": request.width_px,
        "height": request.height_px,
        "steps": request.steps or 20,
        "cfg_scale": request.cfg_scale if request.HasField("cfg_scale") else 7.0,
        "sampler_name": request.sampler or "DPM++ 2M",
        "scheduler": request.scheduler or "Automatic",
        "seed": request.seed if request.HasField("seed") else -1,
        "batch_size": request.num_images or 1,
        "override_settings": {"sd_model_checkpoint": request.model},
        "alwayson_scripts": {},
        "precision": request.precision,
    }
    if request.init_image:
        body["init_images"] = [base64.b64encode(request.init_image).decode()]
        body["denoising_strength"] = request.denoising_strength if request.HasField("denoising_strength") else 0.75
    if request.control_units:
        units = [
            {
                "image": base64.b64encode(unit.image).decode(),
                "model": unit.control_net,
                "module": unit.preprocessor or "canny",
                "weight": unit.weight or 1.0,
            }
            for unit in request.control_units
        ]
        body["alwayson_scripts"] = {"controlnet": {"args": units}}
    return body


def to_progress(gateway: Gateway, job: Job) -> generation_pb2.GenerationProgress:
    """Where a job stands; a waiting one is at least one place from the front."""
    progress = job.progress
    eta = Duration()
    eta.FromMilliseconds(max(0, int(progress.eta_seconds * 1000)))
    return generation_pb2.GenerationProgress(
        queue_position=gateway.jobs.position(job) if job.state == State.PENDING else 0,
        fraction=min(1.0, progress.fraction),
        step=progress.step,
        num_steps=progress.num_steps,
        eta=eta,
        preview=base64.b64decode(progress.preview) if progress.preview else b"",
    )


def to_result(job: Job, answer: dict[str, Any]) -> generation_pb2.GenerationResult:
    """The pictures of a back end's reply, with their own seeds and infotexts."""
    try:
        info = answer["info"] if isinstance(answer["info"], dict) else json.loads(answer["info"])
        # A1111 puts a grid before the pictures when it saves one, and control maps, which have no infotext, behind them.
        first = int(info.get("index_of_first_image", 0))
        pictures = zip(answer["images"][first:], info["all_seeds"], info["infotexts"][first:], strict=False)
        images = [
            generation_pb2.GeneratedImage(data=base64.b64decode(data), seed=seed, infotext=infotext)
            for data, seed, infotext in pictures
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise errors.BackendFailed(job.backend, 200, f"its answer is not that of A1111: {error!r}") from error
    return generation_pb2.GenerationResult(images=images, model_title=job.model)


class GatewayServer(Server):
    """The gRPC server; on_stop is called at the moment it begins to drain, so that HTTP can do so at the same time."""

    on_stop: Callable[[], None] | None = None

    async def stop(self, drain_seconds: float | None = None) -> None:
        """As of Server."""
        if self.on_stop is not None:
            self.on_stop()
        await super().stop(drain_seconds)


def build(config: GatewayConfig, registry: CollectorRegistry | None = None) -> tuple[GatewayServer, Gateway]:
    """A gRPC server that is not started, and the gateway behind it."""
    registry = registry or process_registry()
    backends = [Backend(url, config.engine_token) for url in config.engine_urls]
    jobs = JobQueue(backends, config.max_queue)
    gateway = Gateway(
        backends,
        ModelRegistry(folders.base_models(config.model_folders), config.default_model),
        ControlNetRegistry(folders.control_nets(config.controlnet_folders)),
        Published(Checkpoints(ObjectStore(config.store))),
        jobs,
    )
    metrics = Metrics(registry, lambda: jobs.num_waiting, lambda: gateway.num_alive)
    jobs.on_end = metrics.count
    bindings = [
        Binding(MODEL_SERVICE, partial(registry_pb2_grpc.add_ModelServiceServicer_to_server, ModelServicer(gateway))),
        Binding(
            CONTROL_NET_SERVICE,
            partial(registry_pb2_grpc.add_ControlNetServiceServicer_to_server, ControlNetServicer(gateway)),
        ),
        Binding(
            GENERATION_SERVICE,
            partial(generation_pb2_grpc.add_GenerationServiceServicer_to_server, GenerationServicer(gateway)),
        ),
    ]
    server = GatewayServer("webui-gateway", config.server, bindings, ERRORS, registry)
    # Engines that are scaled to zero are woken by the increase of this count, which the first refusal has to be, too.
    server.announce_failure(ERRORS[errors.NoBackend].reason)
    return server, gateway
