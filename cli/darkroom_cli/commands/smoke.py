"""`darkroom smoke`: one real question to the captioner, one real picture from the engine. `helm test` runs it."""

import base64
import binascii
import http
import io
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import grpc
import typer
from chassis import config
from chassis.client import blocking_channel
from chassis.config import ConfigError, setting
from darkroom.captioner.v1 import messages_pb2 as pb
from darkroom.captioner.v1.service_pb2_grpc import CaptionerServiceStub
from PIL import Image, ImageDraw, UnidentifiedImageError

from darkroom_cli.output import JsonFlag, UsageProblem, console, one_line, print_table, readable_errors

_STEPS = 8
_PROMPT = "a large red circle in the middle on a gray background"
_SIDE_PX = 128
_PAUSE_SECONDS = 1.0

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Caller:
    """Who asks."""

    token: str = setting("DARKROOM_TOKEN", "token of the services", default="", secret=True)


class CheckFailed(UsageProblem):
    """A service gave no answer, or one that cannot be right."""


class NotYet(CheckFailed):
    """A service does not answer, or says that it is not ready; a moment later it may."""


def smoke(
    captioner: Annotated[str, typer.Option(help="Address of a captioner, host:port.")] = "",
    engine: Annotated[str, typer.Option(help="URL of an engine, or of a gateway.")] = "",
    timeout: Annotated[float, typer.Option(help="Most seconds for one answer, loading included.", min=1)] = 300,
    authority: Annotated[
        Path | None,
        typer.Option("--ca", help="PEM file of the authority behind the certificates; switches TLS on.", exists=True),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask the captioner for the words to a drawn picture and the engine for a picture, and check both answers."""
    with readable_errors():
        if not captioner and not engine:
            raise UsageProblem("nothing to ask: name --captioner host:port, --engine http://host:port, or both")
        token = _token()
        rows = []
        if captioner:
            rows.append(("captioner", captioner, ask_captioner(captioner, token, timeout, authority)))
        if engine:
            rows.append(("engine", engine, ask_engine(engine, token, timeout, authority)))
        print_table(("Service", "Address", "Answer"), rows, as_json)


def ask_captioner(target: str, token: str, timeout: float, authority: Path | None) -> str:
    """The caption of a drawn picture. Raises CheckFailed."""
    request = pb.CaptionRequest(images=[pb.Image(data=drawn_picture())])
    with blocking_channel(target, token, root_certificate_file=str(authority or "")) as channel:
        stub = CaptionerServiceStub(channel)

        def ask(seconds: float) -> pb.CaptionResponse:
            try:
                return stub.Caption(request, timeout=seconds)
            except grpc.RpcError as error:
                kind = NotYet if error.code() == grpc.StatusCode.UNAVAILABLE else CheckFailed
                raise kind(f"captioner {target}: {one_line(error)}") from error

        captions = _patiently(ask, timeout).captions
    if len(captions) != 1 or not captions[0].text.strip():
        raise CheckFailed(f"captioner {target}: asked for the caption of one picture, it answered {list(captions)!r}")
    return str(captions[0].text)


def ask_engine(url: str, token: str, timeout: float, authority: Path | None) -> str:
    """Size and number of colours of a picture the engine drew. Raises CheckFailed."""
    wanted = {"prompt": _PROMPT, "steps": _STEPS, "seed": 1}
    path = f"{url.rstrip('/')}/sdapi/v1/txt2img"
    reply = _patiently(lambda seconds: _post(path, wanted, token, seconds, authority), timeout)
    pictures = reply.get("images") if isinstance(reply, dict) else None
    if not isinstance(pictures, list) or len(pictures) != 1:
        raise CheckFailed(f"engine {url}: asked for one picture, it answered {str(reply)[:200]}")
    try:
        with Image.open(io.BytesIO(base64.b64decode(pictures[0], validate=True))) as image:
            drawn = image.convert("RGB")
    except (binascii.Error, TypeError, UnidentifiedImageError, OSError) as error:
        raise CheckFailed(f"engine {url}: what it answered is no picture: {error}") from error
    colours = drawn.getcolors(maxcolors=drawn.width * drawn.height) or []
    if len(colours) < 2:  # NaN in the model becomes black, and black alone
        raise CheckFailed(f"engine {url}: the picture is of one colour only, {colours[0][1]}; its log may say why")
    return f"{drawn.width} x {drawn.height} pixels, {len(colours)} colours"


def drawn_picture() -> bytes:
    """A red disc on gray, as PNG."""
    image = Image.new("RGB", (_SIDE_PX, _SIDE_PX), (128, 128, 128))
    edge = _SIDE_PX // 4
    ImageDraw.Draw(image).ellipse((edge, edge, _SIDE_PX - edge, _SIDE_PX - edge), fill=(220, 30, 30))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def _token() -> str:
    try:
        return config.read(_Caller).token
    except ConfigError as error:
        raise UsageProblem(str(error)) from error


def _patiently(ask: Callable[[float], Answer], timeout: float) -> Answer:
    """What `ask` returns, given the seconds that are left; repeated while it raises NotYet and there is time."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ask(max(deadline - time.monotonic(), 1))
        except NotYet as error:
            if time.monotonic() + _PAUSE_SECONDS >= deadline:
                raise
            console.print(f"waiting: {error}", markup=False, soft_wrap=True)
            time.sleep(_PAUSE_SECONDS)


def _post(url: str, body: dict[str, Any], token: str, timeout: float, authority: Path | None) -> Any:
    """Send JSON, return JSON. Raises CheckFailed with what the server said."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    if not url.startswith(("http://", "https://")):
        raise UsageProblem(f"--engine is {url.removesuffix('/sdapi/v1/txt2img')!r}; write it as http://host:port")
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    tls = ssl.create_default_context(cafile=str(authority)) if authority else None
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=tls) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        said = error.read(500).decode(errors="replace")
        kind = NotYet if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE else CheckFailed
        raise kind(f"engine {url}: HTTP {error.code}: {said}") from error
    except (urllib.error.URLError, TimeoutError) as error:
        raise NotYet(f"engine {url}: no answer: {getattr(error, 'reason', error)}") from error
    except ValueError as error:
        raise CheckFailed(f"engine {url}: its answer is no JSON: {error}") from error
