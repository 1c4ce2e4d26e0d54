"""Routes that draw, and those that watch or stop drawing: txt2img, img2img, progress, interrupt, skip, the queue.

Installed by `app.py`. A route waits for its job in the worker; a client that goes away takes its job with it.
"""

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from webui_engine import images
from webui_engine.engine import Engine
from webui_engine.errors import Cancelled, NotReady
from webui_engine.progress import Snapshot
from webui_engine.schemas import GenerationRequest, Img2ImgRequest, ProgressRequest, Txt2ImgRequest
from webui_engine.worker import Job

router = APIRouter()


@router.post("/sdapi/v1/txt2img")
async def txt2img(body: Txt2ImgRequest, request: Request) -> dict[str, Any]:
    """Pictures from words."""
    return await _generate(body, request)


@router.post("/sdapi/v1/img2img")
async def img2img(body: Img2ImgRequest, request: Request) -> dict[str, Any]:
    """Pictures from a picture and words."""
    return await _generate(body, request)


@router.get("/sdapi/v1/progress")
def progress(request: Request, skip_current_image: bool = False) -> dict[str, Any]:
    """The running generation; all zero while idle."""
    now = engine_of(request).progress.now
    return {
        "progress": now.fraction,
        "eta_relative": now.eta_seconds(time.monotonic()),
        "state": {
            "skipped": now.skipped,
            "interrupted": now.interrupted,
            "stopping_generation": False,
            "job": now.task_id,
            "job_count": now.job_count,
            "job_timestamp": now.job_timestamp,
            "job_no": now.job_no,
            "sampling_step": now.step,
            "sampling_steps": now.num_steps,
        },
        "current_image": None if skip_current_image else _preview(now),
        "textinfo": None,
    }


@router.post("/internal/progress")
def internal_progress(body: ProgressRequest, request: Request) -> dict[str, Any]:
    """The progress of one task by its id."""
    engine = engine_of(request)
    state = engine.worker.state(body.id_task or "")
    reply: dict[str, Any] = {
        "active": state == "active",
        "queued": state == "queued",
        "completed": state == "completed",
        "progress": None,
        "eta": None,
        "live_preview": None,
        "id_live_preview": -1,
        "textinfo": "Waiting...",
    }
    now = engine.progress.now
    if state == "queued":
        waiting = engine.worker.pending()
        place = waiting.index(body.id_task) + 1 if body.id_task in waiting else 1
        reply["textinfo"] = f"In queue: {place}/{len(waiting)}"
    elif state == "active" and now.task_id == body.id_task:
        fresh = body.live_preview and now.preview_id != body.id_live_preview
        preview = _preview(now) if fresh else None
        reply |= {
            "progress": now.fraction,
            "eta": now.eta_seconds(time.monotonic()),
            "live_preview": f"data:image/png;base64,{preview}" if preview else None,
            "id_live_preview": now.preview_id,
            "textinfo": None,
        }
    return reply


@router.get("/internal/pending-tasks")
def pending_tasks(request: Request) -> dict[str, Any]:
    """The ids that wait, the next one first."""
    tasks = engine_of(request).worker.pending()
    return {"size": len(tasks), "tasks": tasks}


@router.get("/internal/ping")
def ping() -> dict[str, Any]:
    """Nothing, quickly."""
    return {}


@router.post("/sdapi/v1/interrupt")
def interrupt(request: Request) -> dict[str, Any]:
    """Stop the running generation after its step; it answers with what exists."""
    engine_of(request).progress.interrupt()
    return {}


@router.post("/sdapi/v1/skip")
def skip(request: Request) -> None:
    """End the running batch after its step and go on with the next."""
    engine_of(request).progress.skip()


def engine_of(request: Request) -> Engine:
    """The engine behind the application that serves this request."""
    engine: Engine = request.app.state.engine
    return engine


async def result_of(job: Job, request: Request, engine: Engine) -> Any:
    """Wait for a job. If the client goes away, or the drain ends, first, it is dropped or stopped: Cancelled, NotReady."""
    result = asyncio.wrap_future(job.future)
    gone = asyncio.ensure_future(_wait_until_gone(request))
    drained = asyncio.ensure_future(request.app.state.drained.wait())
    try:
        await asyncio.wait({result, gone, drained}, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        engine.cancel(job)
        raise NotReady("stopping") if drained.done() else Cancelled
    finally:
        gone.cancel()
        drained.cancel()
        result.add_done_callback(_take_exception)


async def _generate(body: GenerationRequest, request: Request) -> dict[str, Any]:
    engine = engine_of(request)
    job = await run_in_threadpool(engine.submit_generation, body)
    reply: dict[str, Any] = await result_of(job, request, engine)
    return reply


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _take_exception(future: "asyncio.Future[Any]") -> None:
    """Nobody waits for an abandoned job; its exception must not be reported as forgotten."""
    if not future.cancelled():
        future.exception()


def _preview(now: Snapshot) -> str | None:
    """Base64 of a PNG of the first picture of the batch, None before the first step."""
    if now.latents is None:
        return None
    return images.encode_png(now.model.preview.draw(now.latents[0], now.model.scale))
