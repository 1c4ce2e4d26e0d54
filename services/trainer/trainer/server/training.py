"""TrainingService on the wire: messages to orders, runs and records to messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeAlias

import grpc
from artifacts.errors import NotFound
from artifacts.store import ObjectStore
from chassis.errors import FieldViolation, InvalidFields
from darkroom.trainer.v1 import training_pb2 as pb
from darkroom.trainer.v1 import training_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from jobs.errors import FieldsInvalid

from trainer.active_runs import ActiveRuns
from trainer.events import MessageRecord, ProgressRecord, ResumePointRecord, SampleRecord
from trainer.resume_points import ResumePoint
from trainer.runs import Run
from trainer.server.recipes import from_recipe, to_recipe
from trainer.training import Order, Training
from trainer.watching import Happening, watch

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

SAMPLE_LIMIT_BYTES = 1024 * 1024
_STAGES = {"text_encoder": pb.STAGE_TEXT_ENCODER, "unet": pb.STAGE_UNET}


class TrainingServicer(training_pb2_grpc.TrainingServiceServicer):
    """The calls of TrainingService."""

    def __init__(self, training: Training, active: ActiveRuns, store: ObjectStore, poll_seconds: float) -> None:
        self._training = training
        self._active = active
        self._store = store
        self._poll_seconds = poll_seconds

    async def CreateRun(self, request: pb.CreateRunRequest, context: Context) -> pb.Run:
        order = Order(
            request.parent.removeprefix("sessions/"), to_recipe(request.recipe), request.run_id, request.request_id
        )
        try:
            run = await asyncio.to_thread(self._training.create, order)
        except FieldsInvalid as error:
            raise InvalidFields(*(FieldViolation(field, text) for field, text in error.problems)) from error
        if not run.finished:
            self._active.add(run.spec)
        return to_run(run)

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.Run:
        return to_run(await asyncio.to_thread(self._training.runs.get, request.name))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        session = request.parent.removeprefix("sessions/")
        runs, token = await asyncio.to_thread(self._training.page, session, request.page_size, request.page_token)
        return pb.ListRunsResponse(runs=map(to_run, runs), next_page_token=token)

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.Run:
        return to_run(await asyncio.to_thread(self._training.cancel, request.name))

    async def SuspendRun(self, request: pb.SuspendRunRequest, context: Context) -> pb.Run:
        return to_run(await asyncio.to_thread(self._training.suspend, request.name))

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Context) -> pb.Run:
        run, was_over = await asyncio.to_thread(self._training.resume, request.name, request.accept_inexact)
        if was_over:
            self._active.add_again(run.spec)
        return to_run(run)

    async def ListResumePoints(
        self, request: pb.ListResumePointsRequest, context: Context
    ) -> pb.ListResumePointsResponse:
        found = await asyncio.to_thread(self._training.resume_points, request.parent)
        return pb.ListResumePointsResponse(resume_points=map(to_resume_point, found))

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.RunEvent]:
        async for happening in watch(self._training.runs, request.name, self._poll_seconds):
            yield await self._event(happening)

    async def _event(self, happening: Happening) -> pb.RunEvent:
        match happening:
            case Run():
                return pb.RunEvent(run=to_run(happening))
            case ProgressRecord():
                return pb.RunEvent(progress=to_progress(happening))
            case MessageRecord():
                prefix = "" if happening.level == "info" else f"{happening.level}: "
                return pb.RunEvent(message=prefix + happening.text)
            case ResumePointRecord():
                return pb.RunEvent(resume_point=to_resume_point(happening))
            case SampleRecord():
                return pb.RunEvent(sample=await asyncio.to_thread(self._sample, happening))

    def _sample(self, record: SampleRecord) -> pb.Sample:
        sample = pb.Sample(stage=_STAGES[record.stage], step=record.step, prompt=record.prompt, object=record.object)
        with suppress(NotFound):  # samples may be deleted by hand; the run can still be watched
            if self._store.stat(record.object).size_bytes <= SAMPLE_LIMIT_BYTES:
                sample.data = self._store.get(record.object)
        return sample


def to_run(run: Run) -> pb.Run:
    """The wire form of a run."""
    message = pb.Run(
        name=run.name,
        state=pb.RunState.Value(f"RUN_STATE_{run.state}"),
        recipe=from_recipe(run.spec.recipe),
        checkpoint=f"checkpoints/{run.spec.checkpoint}",
        create_time=to_timestamp(run.spec.create_time),
        start_time=to_timestamp(run.status.start_time) if run.status.start_time else None,
        end_time=to_timestamp(run.end_time) if run.end_time else None,
        error=run.error,
        exit_code=run.exit_code,
        num_attempts=len(run.status.attempts),
        inexact=run.inexact,
        pending_reason=run.pending_reason,
    )
    if run.progress:
        message.progress.CopyFrom(to_progress(run.progress))
    return message


def to_progress(record: ProgressRecord) -> pb.Progress:
    """The wire form of a step."""
    return pb.Progress(
        stage=_STAGES[record.stage],
        step=record.step,
        num_steps=record.num_steps,
        loss=record.loss,
        smoothed_loss=record.smoothed_loss,
        learning_rate=record.learning_rate,
        images_per_second=record.images_per_second,
        eta=to_duration(record.eta_seconds),
        time=to_timestamp(record.time),
        text_encoder_learning_rate=record.text_encoder_learning_rate,
        step_time=to_duration(record.step_seconds),
        data_wait=to_duration(record.data_wait_seconds),
        model_flops_utilization=record.model_flops_utilization,
    )


def to_resume_point(point: ResumePoint | ResumePointRecord) -> pb.ResumePoint:
    """The wire form of a resume point; only the record of its writing knows how long training stood still for it."""
    message = pb.ResumePoint(
        object=point.object,
        stage=_STAGES[point.stage],
        step=point.step,
        size_bytes=point.size_bytes,
        time=to_timestamp(point.time),
    )
    if isinstance(point, ResumePointRecord):
        message.stall.CopyFrom(to_duration(point.stall_seconds))
    return message


def to_duration(seconds: float) -> Duration:
    """The wire form of a time span; a negative one is none."""
    duration = Duration()
    duration.FromNanoseconds(int(max(seconds, 0.0) * 1e9))
    return duration


def to_timestamp(time: datetime) -> Timestamp:
    """The wire form of a moment."""
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
