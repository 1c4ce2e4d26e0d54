"""The trainer on the wire: which error is which status, and how the parts are put together."""

import asyncio
import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import split

from artifacts import errors as store_errors
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore
from chassis.errors import ErrorRule, ErrorTable
from chassis.metrics import process_registry
from chassis.server import Binding, Server
from darkroom.trainer.v1 import session_pb2, session_pb2_grpc, training_pb2, training_pb2_grpc
from grpc import StatusCode
from jobs.execution import Execution, Gpu
from jobs.run_spec import RunSpec
from prometheus_client import CollectorRegistry

from trainer import errors
from trainer.active_runs import ActiveRuns
from trainer.backends import Backend
from trainer.base_models import BaseModels
from trainer.cluster import errors as cluster_errors
from trainer.cluster.api import ClusterApi
from trainer.cluster.cluster_jobs import ClusterJobs
from trainer.config import TrainerConfig
from trainer.cropping import Cropper
from trainer.local_job import LocalJobs
from trainer.metrics import TrainingMetrics
from trainer.runs import Runs
from trainer.server.sessions import SessionServicer
from trainer.server.training import TrainingServicer
from trainer.training import Training

__all__ = ["ERRORS", "Trainer", "build"]

_STORE_PAUSE_SECONDS = 2.0
_INVALID, _PRECONDITION = StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION

ERRORS: ErrorTable = {
    errors.ImageUnreadable: ErrorRule(_INVALID, "IMAGE_UNREADABLE"),
    errors.ImageTooLarge: ErrorRule(_INVALID, "IMAGE_TOO_LARGE"),
    errors.ImageTooSmall: ErrorRule(_INVALID, "IMAGE_TOO_SMALL"),
    errors.ImageAnimated: ErrorRule(_INVALID, "IMAGE_ANIMATED"),
    errors.FileNameUnsupported: ErrorRule(_INVALID, "FILE_NAME_UNSUPPORTED"),
    errors.UploadMismatch: ErrorRule(_INVALID, "UPLOAD_MISMATCH"),
    errors.UploadTooLarge: ErrorRule(_INVALID, "UPLOAD_TOO_LARGE"),
    errors.UploadMalformed: ErrorRule(_INVALID, "UPLOAD_MALFORMED"),
    errors.PageTokenInvalid: ErrorRule(_INVALID, "PAGE_TOKEN_INVALID"),
    errors.RequestIdReused: ErrorRule(StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
    errors.BaseModelUnknown: ErrorRule(StatusCode.NOT_FOUND, "BASE_MODEL_UNKNOWN"),
    errors.BaseModelUnsupported: ErrorRule(_PRECONDITION, "BASE_MODEL_UNSUPPORTED"),
    errors.ResolutionUnsupported: ErrorRule(_PRECONDITION, "RESOLUTION_UNSUPPORTED"),
    errors.SessionEmpty: ErrorRule(_PRECONDITION, "SESSION_EMPTY"),
    errors.FilesUnusable: ErrorRule(_PRECONDITION, "FILES_UNUSABLE"),
    errors.CaptionWithoutImage: ErrorRule(_PRECONDITION, "CAPTION_WITHOUT_IMAGE"),
    errors.CaptionMissing: ErrorRule(_PRECONDITION, "CAPTION_MISSING"),
    errors.SessionNotExportable: ErrorRule(_PRECONDITION, "SESSION_NOT_EXPORTABLE"),
    errors.SessionChanged: ErrorRule(StatusCode.ABORTED, "SESSION_CHANGED"),
    errors.OffsetBeyondEnd: ErrorRule(StatusCode.OUT_OF_RANGE, "OFFSET_BEYOND_END"),
    errors.ArchiveInvalid: ErrorRule(_INVALID, "ARCHIVE_INVALID"),
    errors.ArchiveDamaged: ErrorRule(_INVALID, "ARCHIVE_DAMAGED"),
    errors.CheckpointDiffers: ErrorRule(StatusCode.ALREADY_EXISTS, "CHECKPOINT_DIFFERS"),
    errors.RunActive: ErrorRule(_PRECONDITION, "RUN_ACTIVE"),
    errors.RunFinished: ErrorRule(_PRECONDITION, "RUN_FINISHED"),
    errors.RunElsewhere: ErrorRule(_PRECONDITION, "RUN_ELSEWHERE"),
    cluster_errors.ClusterUnavailable: ErrorRule(StatusCode.UNAVAILABLE, "CLUSTER_UNAVAILABLE", retry_seconds=2),
    cluster_errors.QuotaExceeded: ErrorRule(StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", retry_seconds=60),
    cluster_errors.ClusterForbidden: ErrorRule(StatusCode.PERMISSION_DENIED, "CLUSTER_FORBIDDEN"),
    cluster_errors.QueueDecides: ErrorRule(_PRECONDITION, "QUEUE_DECIDES"),
    cluster_errors.ClusterError: ErrorRule(_PRECONDITION, "JOB_REFUSED"),
    store_errors.NotFound: ErrorRule(StatusCode.NOT_FOUND, "NOT_FOUND"),
    store_errors.AlreadyExists: ErrorRule(StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"),
    store_errors.InvalidName: ErrorRule(_INVALID, "INVALID_NAME"),
    store_errors.CaptionInvalid: ErrorRule(_PRECONDITION, "CAPTION_INVALID"),
    store_errors.ManifestInvalid: ErrorRule(_PRECONDITION, "RECORD_INVALID"),
    store_errors.StoreUnavailable: ErrorRule(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", retry_seconds=5),
    store_errors.AccessDenied: ErrorRule(_PRECONDITION, "STORE_ACCESS_DENIED"),
    store_errors.StoreError: ErrorRule(_PRECONDITION, "STORE_REJECTED"),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trainer:
    """The parts behind the server."""

    store: ObjectStore
    training: Training
    active: ActiveRuns
    cropper: Cropper
    backend: Backend

    async def load(self) -> None:
        """Make the bucket and go on with the runs that are not over, as soon as store and backend answer."""
        while True:
            try:
                await asyncio.to_thread(self.backend.start)
                return await self.active.start(self._unfinished)
            except (store_errors.StoreUnavailable, errors.BackendUnavailable, cluster_errors.ClusterForbidden) as error:
                log.warning("waiting: %s", error)
                await asyncio.sleep(_STORE_PAUSE_SECONDS)

    def _unfinished(self) -> list[RunSpec]:
        self.store.ensure_bucket()
        return self.training.unfinished()

    async def close(self) -> None:
        """Stop what works in the background."""
        self.cropper.close()
        await self.active.close()


def build(
    config: TrainerConfig, registry: CollectorRegistry | None = None, backend: Backend | None = None
) -> tuple[Server, Trainer]:
    """A server that is not started, and the trainer behind it, which still has to load. backend: default what config says.

    Raises ClusterForbidden if the backend is a cluster that nobody may use.
    """
    registry = registry or process_registry()
    store = ObjectStore(config.store)
    execution = _execution(config)
    if backend is None and config.backend == "kubernetes":
        api = ClusterApi.connect(execution.namespace)
        execution = replace(execution, namespace=api.namespace)
        backend = ClusterJobs(Runs(store), api, execution, config.cluster)
    backend = backend or LocalJobs(config.store, config.local, config.stop_runs)
    models = BaseModels(store, Path(config.models) if config.models else None)
    training = Training(store, models, backend, execution)
    poll_seconds = config.local.poll_seconds
    active = ActiveRuns(training.runs, backend, TrainingMetrics(registry), poll_seconds)
    trainer = Trainer(store, training, active, Cropper(Sessions(store)), backend)
    sessions = SessionServicer(store, training.runs, trainer.cropper)
    runs = TrainingServicer(training, active, store, poll_seconds)
    bindings = [
        Binding(
            session_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name,
            partial(session_pb2_grpc.add_SessionServiceServicer_to_server, sessions),
        ),
        Binding(
            training_pb2.DESCRIPTOR.services_by_name["TrainingService"].full_name,
            partial(training_pb2_grpc.add_TrainingServiceServicer_to_server, runs),
        ),
    ]
    return Server("trainer", config.server, bindings, ERRORS, registry), trainer


def _execution(config: TrainerConfig) -> Execution:
    if config.backend == "kubernetes":
        return config.read_execution()
    return Execution(
        command=tuple(split(config.local.run_command)),
        image=config.run_image,
        backoff_limit=config.backoff_limit,
        grace_seconds=config.grace_seconds,
        gpu=Gpu(enabled=config.run_gpus > 0, count=max(config.run_gpus, 1)),
    )
