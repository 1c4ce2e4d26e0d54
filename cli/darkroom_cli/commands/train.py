"""`darkroom train`: start a training and watch it."""

from typing import Annotated

import typer
from darkroom.trainer.v1 import training_pb2 as pb

from darkroom_cli.clients import connect
from darkroom_cli.commands import recipe_options as options
from darkroom_cli.commands.runs import follow_run
from darkroom_cli.commands.session import SessionName
from darkroom_cli.output import JsonFlag, print_message, readable_errors
from darkroom_cli.run_words import lines


def train(
    context: typer.Context,
    session: SessionName,
    recipe: options.RecipeFile = None,
    preset: options.PresetName = None,
    base_model: options.BaseModel = None,
    prompt: options.Prompt = None,
    captions: options.Captions = None,
    require_captions: options.RequireCaptions = None,
    caption_dropout: options.CaptionDropout = None,
    seed: options.Seed = None,
    stages: options.StagesName = None,
    text_encoder_steps: options.TextSteps = None,
    text_encoder_rate: options.TextRate = None,
    text_encoder_schedule: options.TextSchedule = None,
    text_encoder_warmup: options.TextWarmup = None,
    text_encoder_resolution: options.TextResolution = None,
    unet_steps: options.UnetSteps = None,
    unet_rate: options.UnetRate = None,
    unet_schedule: options.UnetSchedule = None,
    unet_warmup: options.UnetWarmup = None,
    unet_resolution: options.UnetResolution = None,
    resolution: options.Resolution = None,
    batch_size: options.BatchSize = None,
    crop: options.CropName = None,
    flip: options.Flip = None,
    accumulation: options.Accumulation = None,
    gradient_checkpointing: options.Checkpointing = None,
    precision: options.PrecisionName = None,
    optimizer: options.OptimizerName = None,
    weight_decay: options.WeightDecay = None,
    max_gradient_norm: options.GradientNorm = None,
    min_snr_gamma: options.MinSnrGamma = None,
    offset_noise: options.OffsetNoise = None,
    ema_decay: options.EmaDecay = None,
    reference_order: options.ReferenceOrder = None,
    lora_rank: options.LoraRank = None,
    lora_alpha: options.LoraAlpha = None,
    class_prompt: options.ClassPrompt = None,
    class_images: options.ClassImages = None,
    class_weight: options.ClassWeight = None,
    sample: options.Sample = None,
    sample_every: options.SampleEvery = None,
    resume_point_every_steps: options.PointSteps = None,
    resume_point_every_minutes: options.PointMinutes = None,
    keep_resume_points: options.KeepPoints = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return at once; `darkroom runs watch` shows it later.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a personal model on a session: text encoder first, then UNet. Ctrl-C stops watching, not the training.

    docs/training.md explains every setting, with its default, unit and range.
    """
    with readable_errors(), connect() as clients:
        wanted = options.to_recipe(context.params)
        run = clients.training.CreateRun(pb.CreateRunRequest(parent=f"sessions/{session}", recipe=wanted))
        if detach:
            print_message(run, as_json, lines(run))
        else:
            follow_run(clients, run.name, as_json)
