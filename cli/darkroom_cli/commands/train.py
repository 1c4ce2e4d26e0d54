"""`darkroom train`: start a training and watch it."""

from typing import Annotated

import typer
from darkroom.trainer.v1 import training_pb2 as pb

from darkroom_cli.clients import connect
from darkroom_cli.commands.runs import follow_run
from darkroom_cli.commands.session import SessionName
from darkroom_cli.output import JsonFlag, print_message, readable_errors
from darkroom_cli.run_words import lines


def train(
    session: SessionName,
    base_model: Annotated[str, typer.Option(help="Base model; default the session's.")] = "",
    prompt: Annotated[str, typer.Option(help="Words before each caption, such as 'a photo of sks toy'.")] = "",
    captions: Annotated[bool, typer.Option("--captions", help="Append each image's caption to its prompt.")] = False,
    text_encoder_steps: Annotated[int, typer.Option(help="Steps of the first stage; 0 skips it.")] = 350,
    text_encoder_rate: Annotated[float, typer.Option(help="Learning rate of the first stage.")] = 1e-6,
    unet_steps: Annotated[int, typer.Option(help="Steps of the second stage; 0 skips it.")] = 1500,
    unet_rate: Annotated[float, typer.Option(help="Learning rate of the second stage.")] = 2e-6,
    resolution: Annotated[int, typer.Option(help="Edge of the training square in pixels; 0: the base model's.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images in one step.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    sample: Annotated[list[str] | None, typer.Option(help="Prompt of a sample image; may be repeated.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return at once; `darkroom runs watch` shows it later.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a personal model on a session: text encoder first, then UNet. Ctrl-C stops watching, not the training."""
    recipe = pb.Recipe(
        base_model=base_model,
        instance_prompt=prompt,
        use_captions=captions,
        text_encoder=pb.StageSettings(steps=text_encoder_steps, learning_rate=text_encoder_rate),
        unet=pb.StageSettings(steps=unet_steps, learning_rate=unet_rate),
        resolution_px=resolution,
        batch_size=batch_size,
        seed=seed,
        sample_prompts=sample or [],
    )
    with readable_errors(), connect() as clients:
        run = clients.training.CreateRun(pb.CreateRunRequest(parent=f"sessions/{session}", recipe=recipe))
        if detach:
            print_message(run, as_json, lines(run))
        else:
            follow_run(clients, run.name, as_json)
