"""HTTP routes that draw, and those that watch or stop drawing. Installed by `http_api`.

A route waits for its job in the queue; a client that goes away takes its job with it.
"""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse

from webui_gateway.gateway import IMG2IMG, TXT2IMG, Gateway
from webui_gateway.job import Job, Outcome, State

JOB_HEADER: Final = "X-Darkroom-Job"
JsonBody = Annotated[dict[str, Any], Body()]

_IDLE: Final[Mapping[str, Any]] = {
    "progress": 0.0,
    "eta_relative": 0.0,
    "state": {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": "",
        "job_count": 0,
        "job_timestamp": "0",
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
    },
    "current_image": None,
    "textinfo": None,
}
"""What A1111 says while it draws nothing."""


def router(gateway: Gateway) -> APIRouter:
    """The routes."""
    routes = APIRouter()
    _add_drawing(routes, gateway)
    _add_switches(routes, gateway)
    _add_progress(routes, gateway)
    _add_jobs(routes, gateway)
    return routes


def _add_drawing(routes: APIRouter, gateway: Gateway) -> None:
    async def generate(path: str, request: Request, body: dict[str, Any]) -> JSONResponse:
        job, outcome = await gateway.submit(path, body)
        result = await _unless_client_leaves(gateway, job, outcome, request)
        return JSONResponse(result, headers={JOB_HEADER: job.id})

    @routes.post(TXT2IMG)
    async def txt2img(request: Request, body: JsonBody) -> JSONResponse:
        """Pictures from words."""
        return await generate(TXT2IMG, request, body)

    @routes.post(IMG2IMG)
    async def img2img(request: Request, body: JsonBody) -> JSONResponse:
        """Pictures from a picture and words."""
        return await generate(IMG2IMG, request, body)


def _add_switches(routes: APIRouter, gateway: Gateway) -> None:
    @routes.post("/sdapi/v1/interrupt")
    async def interrupt() -> dict[str, str]:
        """Stop what runs on every back end; the pictures so far are returned, as A1111 does."""
        await gateway.tell_all("/sdapi/v1/interrupt", None)
        return {}

    @routes.post("/sdapi/v1/skip")
    async def skip() -> None:
        """Skip the present picture on every back end."""
        await gateway.tell_all("/sdapi/v1/skip", None)


def _add_progress(routes: APIRouter, gateway: Gateway) -> None:
    @routes.get("/sdapi/v1/progress")
    async def progress(skip_current_image: bool = False) -> dict[str, Any]:
        """Of the generation that has been running longest, in A1111's form; idle if none runs."""
        answer = dict(_IDLE)
        if running := gateway.jobs.running():
            answer |= running[0].progress.raw
            answer["state"] = {**answer["state"], "job": running[0].id}
        return answer | ({"current_image": None} if skip_current_image else {})

    @routes.post("/internal/progress")
    async def task_progress(body: JsonBody) -> dict[str, Any]:
        """Progress of one generation by its id (`force_task_id`), in A1111's form. An id that is not known yet waits."""
        job = next((job for job in gateway.jobs.all() if job.id == body.get("id_task")), None)
        if job is None:
            return _task("Waiting...")
        if position := gateway.jobs.position(job):
            return _task(f"In queue: {position}/{gateway.jobs.num_waiting}", queued=True)
        preview = job.progress.preview
        return _task(
            None,
            active=not job.final,
            completed=job.final,
            progress=job.progress.fraction,
            eta=job.progress.eta_seconds,
            live_preview=f"data:image/png;base64,{preview}" if preview else None,
            id_live_preview=job.progress.step,
        )

    @routes.get("/internal/pending-tasks")
    async def pending() -> dict[str, Any]:
        """Ids of the generations that wait, the next one first."""
        waiting = sorted((job for job in gateway.jobs.all() if gateway.jobs.position(job)), key=gateway.jobs.position)
        return {"size": len(waiting), "tasks": [job.id for job in waiting]}


def _task(textinfo: str | None, **fields: Any) -> dict[str, Any]:
    unknown = {
        "active": False,
        "queued": False,
        "completed": False,
        "progress": None,
        "eta": None,
        "live_preview": None,
        "id_live_preview": -1,
    }
    return {**unknown, "textinfo": textinfo, **fields}


def _add_jobs(routes: APIRouter, gateway: Gateway) -> None:
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

    @routes.get("/darkroom/v1/jobs")
    async def jobs() -> list[dict[str, Any]]:
        """Generations that are remembered, oldest first."""
        return [described(job) for job in gateway.jobs.all()]

    @routes.get("/darkroom/v1/jobs/{job_id:path}")
    async def job(job_id: str) -> dict[str, Any]:
        """One generation."""
        return described(gateway.jobs.get(job_id))

    @routes.delete("/darkroom/v1/jobs/{job_id:path}")
    async def cancel(job_id: str) -> dict[str, bool]:
        """Stop one generation, queued or running; false if it had ended."""
        return {"cancelled": gateway.jobs.cancel(job_id)}


async def _unless_client_leaves(gateway: Gateway, job: Job, outcome: Outcome, request: Request) -> dict[str, Any]:
    """The job's result; cancels the job when the client closes its connection, or when this server stops waiting."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait((leaving, outcome), return_when=asyncio.FIRST_COMPLETED)
        if not outcome.done():
            gateway.jobs.cancel(job.id)
        return await outcome
    finally:
        leaving.cancel()
        if job.state in (State.PENDING, State.RUNNING):
            gateway.jobs.cancel(job.id)
