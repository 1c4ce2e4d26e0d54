"""The line of the demo, step by step, through the services' public interfaces: gRPC, and the A1111 API for the pictures.

Each step takes the `Line` and leaves its results in it; `command` times them and writes the report.
"""

import base64
import json
import secrets
import urllib.error
import urllib.request
from dataclasses import dataclass, field

from darkroom.converter.v1 import converter_pb2
from darkroom.trainer.v1 import session_pb2, training_pb2

from darkroom_cli.clients import Clients
from darkroom_cli.commands.caption import caption_session
from darkroom_cli.commands.convert import Format, run_conversion
from darkroom_cli.commands.crop import crop_session
from darkroom_cli.commands.session import upload_parts
from darkroom_cli.connection import Connection
from darkroom_cli.demo.subject import INSTANCE_PROMPT, NEW_BACKGROUNDS, Photo
from darkroom_cli.output import UsageProblem, progress_bar
from darkroom_cli.run_view import watch_run

BASE_MODEL = "sd15-tiny"
CROP_PX = 256
# Found by trying: enough for the subject, few enough for a coffee.
TEXT_ENCODER_STEPS, TEXT_ENCODER_RATE = 40, 5e-5
UNET_STEPS, UNET_RATE = 700, 1.5e-4
BATCH_SIZE = 4
LORA_RANK, LORA_TEXT_ENCODER_RATE, LORA_UNET_RATE = 32, 1e-3, 3e-3
STEPS, CFG_SCALE, SEED = 30, 1.6, 7
_HTTP_SECONDS = 300
_PREPOSITIONS = ("on", "in", "at", "under", "over", "before", "behind")


@dataclass
class Line:
    """What the demo works with and what it found out."""

    clients: Clients
    where: Connection
    photos: list[Photo]
    is_lora: bool = False
    session: str = field(default_factory=lambda: f"demo-{secrets.token_hex(3)}")
    captions: dict[str, str] = field(default_factory=dict)
    before: list[bytes] = field(default_factory=list)
    after: list[bytes] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    run: training_pb2.Run = field(default_factory=training_pb2.Run)
    conversions: dict[Format, converter_pb2.Conversion] = field(default_factory=dict)

    @property
    def prompts(self) -> list[str]:
        """What is drawn before and after: the subject where the photos never showed it."""
        return [f"{INSTANCE_PROMPT} {background}" for background in NEW_BACKGROUNDS]


def upload(line: Line) -> None:
    """A session with the photos."""
    request = session_pb2.CreateSessionRequest(
        session_id=line.session, session=session_pb2.Session(base_model=BASE_MODEL, description="the demo's subject")
    )
    line.clients.sessions.CreateSession(request)
    for photo in line.photos:
        line.clients.sessions.UploadImage(upload_parts(line.session, photo.filename, photo.data))


def caption(line: Line) -> None:
    """A caption for each photo. Raises UsageProblem if one could not be captioned.

    What is trained on is the part of the caption that describes the surroundings: named, they do not stick to the subject,
    and what the model already calls the subject would compete with its new name.
    """
    rows = caption_session(line.clients, line.session)
    if failed := [f"{image}: {error}" for image, _, error in rows if error]:
        raise UsageProblem("; ".join(failed))
    line.captions = {image: text for image, text, _ in rows}
    for image, text in line.captions.items():
        request = session_pb2.SetCaptionRequest(
            image=f"sessions/{line.session}/images/{image}", text=surroundings(text)
        )
        line.clients.sessions.SetCaption(request)


def surroundings(text: str) -> str:
    """The part of a caption from its first preposition of place on; empty if it has none.

    >>> surroundings("a large green toy on a gray background")
    'on a gray background'
    """
    words = text.split()
    start = next((index for index, word in enumerate(words) if word in _PREPOSITIONS), len(words))
    return " ".join(words[start:])


def crop(line: Line) -> None:
    """Squares around the subject."""
    failed = [result for result in crop_session(line.clients, line.session, CROP_PX) if result.error]
    if failed:
        raise UsageProblem("; ".join(f"{result.image}: {result.error}" for result in failed))


def draw_before(line: Line) -> None:
    """The prompts with the base model, which has never seen the subject."""
    line.before = _draw_all(line, BASE_MODEL)


def train(line: Line) -> None:
    """Two stages, of the weights or of adapters. Raises UsageProblem if the run does not succeed."""
    rates = (LORA_TEXT_ENCODER_RATE, LORA_UNET_RATE) if line.is_lora else (TEXT_ENCODER_RATE, UNET_RATE)
    recipe = training_pb2.Recipe(
        base_model=BASE_MODEL,
        instance_prompt=INSTANCE_PROMPT,
        use_captions=True,
        text_encoder=training_pb2.StageSettings(steps=TEXT_ENCODER_STEPS, learning_rate=rates[0]),
        unet=training_pb2.StageSettings(steps=UNET_STEPS, learning_rate=rates[1]),
        batch_size=BATCH_SIZE,
        seed=SEED,
        lora=training_pb2.Lora(rank=LORA_RANK) if line.is_lora else None,
    )
    request = training_pb2.CreateRunRequest(parent=f"sessions/{line.session}", recipe=recipe)
    started = line.clients.training.CreateRun(request)
    line.run = watch_run(line.clients, started.name, line.losses)
    if line.run.state != training_pb2.RUN_STATE_SUCCEEDED:
        raise UsageProblem(f"the training ended {training_pb2.RunState.Name(line.run.state)}: {line.run.error}")


def convert(line: Line) -> None:
    """The trained checkpoint as .safetensors and as .ckpt. Raises UsageProblem if one fails."""
    for to in (Format.SAFETENSORS, Format.CKPT):
        done = run_conversion(line.clients, line.run.checkpoint, to)
        if done.state != converter_pb2.CONVERSION_STATE_SUCCEEDED:
            raise UsageProblem(f"conversion to {to} failed: {done.error}")
        line.conversions[to] = done


def draw_after(line: Line) -> None:
    """The same prompts and seeds with what was trained, served by the gateway without a restart: the converted
    .safetensors, or the base model with the adapters."""
    if line.is_lora:
        tag = f"<lora:{line.run.checkpoint.removeprefix('checkpoints/')}:1>"
        line.after = _draw_all(line, BASE_MODEL, tag)
    else:
        line.after = _draw_all(line, line.conversions[Format.SAFETENSORS].checkpoint.removeprefix("checkpoints/"))


def _draw_all(line: Line, model: str, tag: str = "") -> list[bytes]:
    pictures = []
    with progress_bar() as bar:
        task = bar.add_task("drawing", total=len(line.prompts), note=f"with {model}")
        for prompt in line.prompts:
            pictures.append(draw(line.where, model, f"{prompt} {tag}".strip()))
            bar.advance(task)
    return pictures


def draw(where: Connection, model: str, prompt: str) -> bytes:
    """One picture through the A1111 API, as PNG."""
    body = {
        "prompt": prompt,
        "steps": STEPS,
        "cfg_scale": CFG_SCALE,
        "seed": SEED,
        "sampler_name": "DDIM",
        "override_settings": {"sd_model_checkpoint": model},
    }
    request = urllib.request.Request(
        f"{where.http}/sdapi/v1/txt2img",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {where.token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_HTTP_SECONDS) as answer:
            images: list[str] = json.load(answer)["images"]
    except urllib.error.HTTPError as error:
        raise UsageProblem(
            f"txt2img with {model} answered {error.code}: {error.read().decode(errors='replace')}"
        ) from error
    return base64.b64decode(images[0])
