"""HTTP routes that list and set: models and options are the gateway's own, the rest is a back end's. Installed by `http_api`.

Samplers, schedules, scripts and LoRAs are those of all back ends, because a request goes to one that can do it. What else
describes back ends is asked of the first that answers; switches go to all.
"""

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse

from webui_gateway.errors import RequestInvalid
from webui_gateway.gateway import Gateway
from webui_gateway.models import SHORT_HASH_DIGITS, Model

# Lists of what requests may name, and the fields that tell their lines apart.
FROM_ALL: Final = {
    "samplers": ("name",),
    "schedulers": ("name",),
    "script-info": ("name", "is_img2img"),
    "loras": ("name",),
}
# These describe what a back end has.
FROM_ONE: Final = (
    "embeddings", "extensions", "face-restorers", "hypernetworks", "latent-upscale-modes", "memory",
    "prompt-styles", "realesrgan-models", "sd-vae", "upscalers",
)  # fmt: skip
CONTROLNET_FROM_ONE: Final = ("control_types", "module_list", "settings", "version")
POST_TO_ONE: Final = ("/sdapi/v1/png-info", "/controlnet/detect")
POST_TO_ALL: Final = (
    "refresh-checkpoints", "refresh-embeddings", "refresh-loras", "refresh-vae", "reload-checkpoint", "unload-checkpoint",
)  # fmt: skip

JsonBody = Annotated[dict[str, Any], Body()]


def router(gateway: Gateway) -> APIRouter:
    """The routes."""
    routes = APIRouter()
    _add_options(routes, gateway)
    _add_models(routes, gateway)
    _add_abilities(routes, gateway)
    _add_forwarding(routes, gateway)
    return routes


def _add_options(routes: APIRouter, gateway: Gateway) -> None:
    @routes.get("/sdapi/v1/options")
    async def options() -> dict[str, Any]:
        """Options of a back end with the checkpoint that the gateway has selected."""
        found: dict[str, Any] = await gateway.ask("/sdapi/v1/options")
        model = gateway.models.usable("")
        return found | {"sd_model_checkpoint": model.title, "sd_checkpoint_hash": model.sha256}

    @routes.post("/sdapi/v1/options")
    async def set_options(body: JsonBody) -> None:
        """The checkpoint is the gateway's own choice, sent with each generation; other options go to every back end."""
        await gateway.select(body)

    @routes.get("/sdapi/v1/cmd-flags")
    async def cmd_flags() -> dict[str, Any]:
        """The command line of a back end, without its secrets."""
        await gateway.refresh()
        return await gateway.alive()[0].flags()


def _add_models(routes: APIRouter, gateway: Gateway) -> None:
    @routes.get("/sdapi/v1/sd-models")
    async def sd_models() -> list[dict[str, Any]]:
        """Every model that some back end can draw with; a checkpoint as soon as it is published."""
        await gateway.refresh(force=True)
        gateway.alive()
        return [_listed(model) for model in gateway.models.all() if model.available]

    @routes.get("/controlnet/model_list")
    async def control_nets() -> dict[str, list[str]]:
        """Every control net that some back end has."""
        await gateway.refresh(force=True)
        gateway.alive()
        nets = [next(iter(net.titles.values())) for net in gateway.control_nets.all() if net.available]
        return {"model_list": ["None", *nets]}


def _listed(model: Model) -> dict[str, Any]:
    return {
        "title": model.title,
        "model_name": model.name,
        "hash": model.sha256[:SHORT_HASH_DIGITS] or None,
        "sha256": model.sha256 or None,
        "filename": model.checkpoint or model.name,
        "config": None,
    }


def _add_abilities(routes: APIRouter, gateway: Gateway) -> None:
    @routes.get("/sdapi/v1/scripts")
    async def scripts() -> dict[str, list[str]]:
        """Scripts of any back end, by tab."""
        answers = await gateway.ask_all("/sdapi/v1/scripts")
        tabs = {tab for answer in answers for tab in answer}
        return {tab: sorted({name for answer in answers for name in answer.get(tab, ())}) for tab in sorted(tabs)}

    def add(name: str, key: tuple[str, ...]) -> None:
        async def lines_of_all() -> list[dict[str, Any]]:
            """What any back end lists; of the same line of several, the first one's."""
            lines: dict[tuple[Any, ...], dict[str, Any]] = {}
            for answer in await gateway.ask_all(f"/sdapi/v1/{name}"):
                for line in answer:
                    lines.setdefault(tuple(line.get(field) for field in key), line)
            return list(lines.values())

        routes.add_api_route(f"/sdapi/v1/{name}", lines_of_all, methods=["GET"], name=name)

    for name, key in FROM_ALL.items():
        add(name, key)


def _add_forwarding(routes: APIRouter, gateway: Gateway) -> None:
    async def get_one(request: Request) -> JSONResponse:
        """Asked of the first back end that answers and has this route."""
        return JSONResponse(await gateway.ask(request.url.path, dict(request.query_params)))

    async def post_one(request: Request) -> JSONResponse:
        """Done by the first back end that answers and has this route."""
        return JSONResponse(await gateway.have_done(request.url.path, await _json(request)))

    async def post_all(request: Request) -> JSONResponse:
        """Done by every back end."""
        answer = await gateway.tell_all(request.url.path, await _json(request))
        await gateway.refresh(force=True)
        return JSONResponse(answer)

    for name in FROM_ONE:
        routes.add_api_route(f"/sdapi/v1/{name}", get_one, methods=["GET"], name=name)
    for name in CONTROLNET_FROM_ONE:
        routes.add_api_route(f"/controlnet/{name}", get_one, methods=["GET"], name=name)
    for path in POST_TO_ONE:
        routes.add_api_route(path, post_one, methods=["POST"])
    for name in POST_TO_ALL:
        routes.add_api_route(f"/sdapi/v1/{name}", post_all, methods=["POST"], name=name)


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body() or b"null")
    except (ValueError, RecursionError) as error:
        raise RequestInvalid(f"the body is not JSON: {error}") from error
