"""The A1111 REST API of the gateway, and job routes beside it. Every route asks for the token but /healthz and /readyz.

Generation goes through the queue; what describes the back ends is asked of the first that answers; switches go to all.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from chassis.auth import token_matches
from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from webui_gateway import http_errors
from webui_gateway.errors import NoBackend
from webui_gateway.gateway import IMG2IMG, TXT2IMG, Gateway
from webui_gateway.jobs import Job

OPEN_PATHS = ("/healthz", "/readyz")
MAX_BODY_BYTES = 64 * 1024 * 1024
JOB_HEADER = "X-Darkroom-Job"

# Asked of the first back end that answers: these describe what a back end can do or has.
FROM_ONE = (
    "cmd-flags", "embeddings", "extensions", "face-restorers", "hypernetworks", "latent-upscale-modes", "loras", "memory",
    "prompt-styles", "realesrgan-models", "samplers", "schedulers", "script-info", "scripts", "sd-vae", "upscalers",
)  # fmt: skip
CONTROLNET_FROM_ONE = ("control_types", "model_list", "module_list", "settings", "version")
POST_TO_ONE = ("/sdapi/v1/png-info", "/controlnet/detect")
POST_TO_ALL = (
    "refresh-checkpoints", "refresh-embeddings", "refresh-loras", "refresh-vae", "reload-checkpoint", "unload-checkpoint",
)  # fmt: skip

JsonBody = Annotated[dict[str, Any], Body()]


def create_app(gateway: Gateway, token: str) -> FastAPI:
    """The application. token: "" switches authentication off."""
    app = FastAPI(
        title="Darkroom webui-gateway", description="The A1111 API over one or several back ends.", version="1"
    )
    http_errors.install(app)
    app.middleware("http")(_limit_body)
    app.middleware("http")(_check_token(token))
    _add_health(app, gateway)
    _add_generation(app, gateway)
    _add_jobs(app, gateway)
    _add_options(app, gateway)
    _add_forwarding(app, gateway)
    return app


Next = Callable[[Request], Awaitable[Response]]


def _check_token(token: str) -> Callable[[Request, Next], Awaitable[Response]]:
    async def check(request: Request, call_next: Next) -> Response:
        if token and request.url.path not in OPEN_PATHS and not token_matches(token, presented_token(request)):
            answer = http_errors.body(
                "Unauthorized", "send the token as `Authorization: Bearer TOKEN`, or as the password of HTTP Basic"
            )
            return JSONResponse(answer, 401, {"WWW-Authenticate": "Basic"})
        return await call_next(request)

    return check


def presented_token(request: Request) -> str:
    """The bearer token, or the password of HTTP Basic (any user); "" if there is neither."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


async def _limit_body(request: Request, call_next: Next) -> Response:
    length = request.headers.get("content-length", "")
    if request.method == "POST" and not length.isdigit():
        return JSONResponse(http_errors.body("LengthRequired", "send Content-Length with the body"), 411)
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        detail = f"the body has {length} bytes and at most {MAX_BODY_BYTES} are accepted; send smaller images"
        return JSONResponse(http_errors.body("BodyTooLarge", detail), 413)
    return await call_next(request)


def _add_health(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        await gateway.refresh()
        try:
            gateway.alive()
        except NoBackend as error:
            return JSONResponse({"status": str(error)}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/internal/ping")
    async def ping() -> dict[str, str]:
        return {}


def _add_generation(app: FastAPI, gateway: Gateway) -> None:
    async def generate(path: str, request: Request, body: dict[str, Any]) -> JSONResponse:
        job = await gateway.submit(path, body)
        result = await _result_unless_client_leaves(gateway, job, request)
        return JSONResponse(result, headers={JOB_HEADER: job.id})

    @app.post(TXT2IMG)
    async def txt2img(request: Request, body: JsonBody) -> JSONResponse:
        return await generate(TXT2IMG, request, body)

    @app.post(IMG2IMG)
    async def img2img(request: Request, body: JsonBody) -> JSONResponse:
        return await generate(IMG2IMG, request, body)

    @app.get("/sdapi/v1/progress")
    async def progress(skip_current_image: bool = False) -> dict[str, Any]:
        """Of the generation that has been running longest, in A1111's form; idle if none runs."""
        running = gateway.jobs.running()
        if running and running[0].progress.raw:
            return {**running[0].progress.raw} | ({"current_image": None} if skip_current_image else {})
        await gateway.refresh()
        answer: dict[str, Any] = await gateway.alive()[0].get("/sdapi/v1/progress", {"skip_current_image": "true"})
        return answer

    @app.post("/sdapi/v1/interrupt")
    async def interrupt() -> dict[str, str]:
        """Stop what runs on every back end; the pictures so far are returned, as A1111 does."""
        for backend in gateway.alive():
            await backend.interrupt()
        return {}

    @app.post("/sdapi/v1/skip")
    async def skip() -> None:
        """Skip the present picture on every back end."""
        for backend in gateway.alive():
            await backend.post("/sdapi/v1/skip", None)

    @app.post("/internal/progress")
    async def task_progress(body: JsonBody) -> dict[str, Any]:
        """Progress of one generation by its id (`force_task_id`), in A1111's form."""
        job = gateway.jobs.get(str(body.get("id_task", "")))
        position = gateway.jobs.position(job)
        return {
            "active": job.state == "RUNNING",
            "queued": position > 0,
            "completed": job.final,
            "progress": job.progress.fraction,
            "eta": job.progress.eta_seconds,
            "live_preview": f"data:image/png;base64,{job.progress.preview}" if job.progress.preview else None,
            "id_live_preview": job.progress.step,
            "textinfo": f"In queue: {position}" if position else None,
        }

    @app.get("/internal/pending-tasks")
    async def pending() -> dict[str, Any]:
        waiting = [job.id for job in gateway.jobs.all() if not job.final]
        return {"size": len(waiting), "tasks": waiting}


async def _result_unless_client_leaves(gateway: Gateway, job: Job, request: Request) -> dict[str, Any]:
    """The job's result; cancels the job when the client closes its connection."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait((leaving, job.future), return_when=asyncio.FIRST_COMPLETED)
        if not job.future.done():
            await gateway.jobs.cancel(job.id)
        return await job.future
    finally:
        leaving.cancel()


def _add_jobs(app: FastAPI, gateway: Gateway) -> None:
    def described(job: Job) -> dict[str, Any]:
        return {
            "id": job.id,
            "state": job.state,
            "model": job.model,
            "queue_position": gateway.jobs.position(job),
            "progress": job.progress.fraction,
            "step": job.progress.step,
            "steps": job.progress.num_steps,
            "eta_seconds": job.progress.eta_seconds,
            "backend": job.backend,
        }

    @app.get("/darkroom/v1/jobs")
    async def jobs() -> list[dict[str, Any]]:
        """Generations that are remembered, oldest first."""
        return [described(job) for job in gateway.jobs.all()]

    @app.get("/darkroom/v1/jobs/{job_id}")
    async def job(job_id: str) -> dict[str, Any]:
        """One generation."""
        return described(gateway.jobs.get(job_id))

    @app.delete("/darkroom/v1/jobs/{job_id}")
    async def cancel(job_id: str) -> dict[str, bool]:
        """Stop one generation, queued or running."""
        return {"cancelled": await gateway.jobs.cancel(job_id)}


def _add_options(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/sdapi/v1/options")
    async def options() -> dict[str, Any]:
        await gateway.refresh()
        found: dict[str, Any] = await gateway.alive()[0].get("/sdapi/v1/options")
        return found | {"sd_model_checkpoint": gateway.models.usable("").title}

    @app.post("/sdapi/v1/options")
    async def set_options(body: JsonBody) -> None:
        """The checkpoint is the gateway's own choice, sent with each generation; other options go to every back end."""
        await gateway.refresh(force=True)
        others = {name: value for name, value in body.items() if name != "sd_model_checkpoint"}
        for backend in gateway.alive() if others else ():
            await backend.post("/sdapi/v1/options", others)
        if wanted := body.get("sd_model_checkpoint"):
            gateway.models.select(str(wanted))

    @app.get("/sdapi/v1/sd-models")
    async def sd_models() -> list[dict[str, Any]]:
        """Every model that some back end can draw with; a checkpoint as soon as it is published."""
        await gateway.refresh(force=True)
        return [
            {
                "title": model.title,
                "model_name": model.name,
                "hash": model.sha256[:10] or None,
                "sha256": model.sha256 or None,
                "filename": model.checkpoint or model.name,
                "config": None,
            }
            for model in gateway.models.all()
            if model.backends
        ]


def _add_forwarding(app: FastAPI, gateway: Gateway) -> None:
    async def get_one(request: Request) -> JSONResponse:
        await gateway.refresh()
        return JSONResponse(await gateway.alive()[0].get(request.url.path, dict(request.query_params)))

    async def post_one(request: Request) -> JSONResponse:
        await gateway.refresh()
        return JSONResponse(
            await gateway.alive()[0].post(request.url.path, json.loads(await request.body() or b"null"))
        )

    async def post_all(request: Request) -> JSONResponse:
        await gateway.refresh(force=True)
        body = json.loads(await request.body() or b"null")
        answers = [await backend.post(request.url.path, body) for backend in gateway.alive()]
        await gateway.refresh(force=True)
        return JSONResponse(answers[0])

    for name in FROM_ONE:
        app.add_api_route(f"/sdapi/v1/{name}", get_one, methods=["GET"], name=name)
    for name in CONTROLNET_FROM_ONE:
        app.add_api_route(f"/controlnet/{name}", get_one, methods=["GET"], name=name)
    for path in POST_TO_ONE:
        app.add_api_route(path, post_one, methods=["POST"])
    for name in POST_TO_ALL:
        app.add_api_route(f"/sdapi/v1/{name}", post_all, methods=["POST"], name=name)
