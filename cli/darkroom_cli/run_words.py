"""Runs in words: names, states, stages, times, and recipes as flat lists of settings."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from darkroom.trainer.v1 import training_pb2 as pb
from google.protobuf.message import Message

FINAL = frozenset({pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED})
_STAGES = {pb.STAGE_TEXT_ENCODER: "text encoder", pb.STAGE_UNET: "UNet"}
# What the service fills in, where that is not the zero of the field's type.
_DEFAULTS = pb.Recipe(
    text_encoder=pb.StageSettings(steps=350, learning_rate=1e-6, schedule=pb.LEARNING_RATE_SCHEDULE_LINEAR),
    unet=pb.StageSettings(steps=1500, learning_rate=2e-6, schedule=pb.LEARNING_RATE_SCHEDULE_LINEAR),
    use_captions=False,
    flip=False,
    caption_dropout=0,
    offset_noise=0,
    min_snr_gamma=0,
    stages=pb.STAGES_MODE_TEXT_ENCODER_ONLY_FIRST,
    crop=pb.CROP_MODE_RANDOM,
    batch_size=1,
    gradient_accumulation_steps=1,
    precision=pb.PRECISION_FP32,
    optimizer=pb.OPTIMIZER_ADAMW,
    weight_decay=0.01,
    max_gradient_norm=1,
    resume_point_every_minutes=5,
    keep_resume_points=2,
)


def short_name(name: str) -> str:
    """SESSION/RUN of "sessions/SESSION/runs/RUN"."""
    return name.removeprefix("sessions/").replace("/runs/", "/", 1)


def state_of(run: pb.Run) -> str:
    """The state without its prefix."""
    return pb.RunState.Name(run.state).removeprefix("RUN_STATE_")


def stage_of(stage: int) -> str:
    """The name of a stage; one that this client does not know keeps that of the proto, or its number."""
    if stage in _STAGES:
        return _STAGES[pb.Stage.ValueType(stage)]
    known = pb.Stage.DESCRIPTOR.values_by_number.get(stage)
    return known.name.removeprefix("STAGE_").lower().replace("_", " ") if known else f"stage {stage}"


def where(progress: pb.Progress) -> str:
    """Stage and step; empty before the first step."""
    return f"{stage_of(progress.stage)} {progress.step}/{progress.num_steps}" if progress.num_steps else ""


def loss_of(progress: pb.Progress) -> str:
    """The smoothed loss; empty before the first step."""
    return f"{progress.smoothed_loss:.4f}" if progress.num_steps else ""


def duration(run: pb.Run) -> timedelta | None:
    """From the first start of the program to its end, or until now; None if it has not started."""
    if not run.HasField("start_time"):
        return None
    end = run.end_time.ToDatetime(UTC) if run.HasField("end_time") else datetime.now(UTC)
    return end - run.start_time.ToDatetime(UTC)


def clock(time: timedelta | float | None) -> str:
    """H:MM:SS; empty for None."""
    if time is None:
        return ""
    seconds = time.total_seconds() if isinstance(time, timedelta) else time
    return str(timedelta(seconds=round(seconds)))


def lines(run: pb.Run) -> list[tuple[str, object]]:
    """What a person wants to know of a run, as pairs of name and value."""
    found: list[tuple[str, object]] = [
        ("run", short_name(run.name)),
        ("state", state_of(run)),
        ("checkpoint", run.checkpoint.removeprefix("checkpoints/")),
    ]
    if run.HasField("progress"):
        found += [("step", where(run.progress)), ("loss", loss_of(run.progress))]
    if run.pending_reason:
        found.append(("waits", run.pending_reason))
    if run.error:
        found.append(("error", run.error))
    return found


def changed_settings(recipe: pb.Recipe) -> dict[str, str]:
    """The settings of a recipe that are not the defaults, by the names of the proto ("unet.steps")."""
    defaults = settings(_DEFAULTS)
    return {name: value for name, value in settings(recipe).items() if value != defaults[name]}


def different_settings(one: pb.Recipe, other: pb.Recipe) -> dict[str, tuple[str, str]]:
    """The settings in which two recipes differ, by the names of the proto."""
    left, right = settings(one), settings(other)
    return {name: (left[name], right[name]) for name in left if left[name] != right[name]}


def settings(message: Message, prefix: str = "", is_set: bool = True) -> dict[str, str]:
    """Every field of a message in words; fields of messages inside it are named with a point between.

    Fields of a message that is not set, and optional ones that are not, have an empty value.
    """
    found: dict[str, str] = {}
    for field in message.DESCRIPTOR.fields:
        name, value = f"{prefix}{field.name}", getattr(message, field.name)
        is_there = is_set and (not field.has_presence or message.HasField(field.name))
        if field.is_repeated:
            found[name] = ", ".join(repr(_word(field, item)) for item in value)
        elif field.message_type:
            found |= settings(value, f"{name}.", is_there)
        else:
            found[name] = str(_word(field, value)) if is_there else ""
    return found


def _word(field: Any, value: Any) -> Any:
    if field.enum_type:
        prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", field.enum_type.name).upper() + "_"
        known = field.enum_type.values_by_number.get(value)
        return known.name.removeprefix(prefix).lower() if known else value
    return f"{value:g}" if isinstance(value, float) else value
