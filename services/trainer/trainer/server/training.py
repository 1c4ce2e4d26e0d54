"""TrainingService on the wire: messages to orders, runs and records to messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal, TypeAlias

import grpc
from artifacts.errors import NotFound
from artifacts.store import ObjectStore
from chassis.errors import FieldViolation, InvalidFields
from darkroom.trainer.v1 import training_pb2 as pb
from darkroom.trainer.v1 import training_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from trainer.active_runs import ActiveRuns
from trainer.errors import FieldsInvalid
from trainer.events import MessageRecord, ProgressRecord, SampleRecord
from trainer.recipe import Recipe, StageSettings
from trainer.runs import Run
from trainer.training import Order, Training
from trainer.watching import Happening, watch

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

SAMPLE_LIMIT_BYTES = 1024 * 1024
_PRECISIONS = {pb.PRECISION_UNSPECIFIED: "fp32", pb.PRECISION_FP32: "fp32", pb.PRECISION_BF16: "bf16"}
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
            case SampleRecord():
                return pb.RunEvent(sample=await asyncio.to_thread(self._sample, happening))

    def _sample(self, record: SampleRecord) -> pb.Sample:
        sample = pb.Sample(stage=_STAGES[record.stage], step=record.step, prompt=record.prompt, object=record.object)
        with suppress(NotFound):  # samples may be deleted by hand; the run can still be watched
            if self._store.stat(record.object).size_bytes <= SAMPLE_LIMIT_BYTES:
                sample.data = self._store.get(record.object)
        return sample


def to_recipe(message: pb.Recipe) -> Recipe:
    """Domain recipe; stages that are not set keep their defaults."""
    default = Recipe()
    return Recipe(
        base_model=message.base_model,
        text_encoder=_to_stage(message, "text_encoder", default.text_encoder),
        unet=_to_stage(message, "unet", default.unet),
        resolution_px=message.resolution_px,
        batch_size=message.batch_size or default.batch_size,
        precision=_PRECISIONS[message.precision],
        seed=message.seed,
        instance_prompt=message.instance_prompt.strip(),
        use_captions=message.use_captions,
        require_captions=message.require_captions,
        sample_prompts=tuple(message.sample_prompts),
        sample_every_steps=message.sample_every_steps,
        flip=message.flip,
    )


def _to_stage(message: pb.Recipe, name: Literal["text_encoder", "unet"], default: StageSettings) -> StageSettings:
    if not message.HasField(name):
        return default
    stage: pb.StageSettings = getattr(message, name)
    return StageSettings(stage.steps, stage.learning_rate if stage.steps else default.learning_rate)


def to_run(run: Run) -> pb.Run:
    """The wire form of a run."""
    message = pb.Run(
        name=run.name,
        state=pb.RunState.Value(f"RUN_STATE_{run.state}"),
        recipe=_from_recipe(run.spec.recipe),
        checkpoint=f"checkpoints/{run.spec.checkpoint}",
        create_time=to_timestamp(run.spec.create_time),
        start_time=to_timestamp(run.status.start_time) if run.status.start_time else None,
        end_time=to_timestamp(run.end_time) if run.end_time else None,
        error=run.error,
        exit_code=run.exit_code,
        num_attempts=len(run.status.attempts),
    )
    if run.progress:
        message.progress.CopyFrom(to_progress(run.progress))
    return message


def to_progress(record: ProgressRecord) -> pb.Progress:
    """The wire form of a step."""
    eta = Duration()
    eta.FromNanoseconds(int(max(record.eta_seconds, 0.0) * 1e9))
    return pb.Progress(
        stage=_STAGES[record.stage],
        step=record.step,
        num_steps=record.num_steps,
        loss=record.loss,
        smoothed_loss=record.smoothed_loss,
        learning_rate=record.learning_rate,
        images_per_second=record.images_per_second,
        eta=eta,
        time=to_timestamp(record.time),
    )


def _from_recipe(recipe: Recipe) -> pb.Recipe:
    return pb.Recipe(
        base_model=recipe.base_model,
        text_encoder=pb.StageSettings(**vars(recipe.text_encoder)),
        unet=pb.StageSettings(**vars(recipe.unet)),
        resolution_px=recipe.resolution_px,
        batch_size=recipe.batch_size,
        precision=pb.PRECISION_BF16 if recipe.precision == "bf16" else pb.PRECISION_FP32,
        seed=recipe.seed,
        instance_prompt=recipe.instance_prompt,
        use_captions=recipe.use_captions,
        require_captions=recipe.require_captions,
        sample_prompts=recipe.sample_prompts,
        sample_every_steps=recipe.sample_every_steps,
        flip=recipe.flip,
    )


def to_timestamp(time: datetime) -> Timestamp:
    """The wire form of a moment."""
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
