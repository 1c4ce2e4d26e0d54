"""Routes that list and set: options, models, samplers and what A1111 has beside them, png-info, memory.

Installed by `app.py`. Lists of things this engine has none of are empty, so that clients which ask for all of them work.
"""

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from webui_engine import VERSION, images, infotext, memory
from webui_engine.generation_routes import engine_of, result_of
from webui_engine.planning import CONTROLNET_SCRIPT
from webui_engine.samplers import SAMPLERS, SCHEDULES
from webui_engine.schemas import PngInfoRequest

router = APIRouter()


@router.get("/sdapi/v1/options")
def get_options(request: Request) -> dict[str, Any]:
    """All options."""
    return engine_of(request).options.as_json()


@router.post("/sdapi/v1/options")
async def set_options(body: dict[str, Any], request: Request) -> None:
    """Set some options; a model is loaded before the reply. They hold for requests that come after."""
    engine = engine_of(request)
    job = await run_in_threadpool(engine.submit_options, body)
    await result_of(job, request, engine)


@router.get("/sdapi/v1/sd-models")
def sd_models(request: Request) -> list[dict[str, Any]]:
    """Local models and published checkpoints."""
    return [
        {
            "title": model.title,
            "model_name": model.name,
            "hash": model.short_hash,
            "sha256": model.sha256,
            "filename": str(model.path),
            "config": None,
        }
        for model in engine_of(request).catalogue.models()
    ]


@router.post("/sdapi/v1/refresh-checkpoints")
def refresh_checkpoints(request: Request) -> None:
    """Read folders and bucket again."""
    engine_of(request).catalogue.refresh()


@router.post("/sdapi/v1/unload-checkpoint")
async def unload_checkpoint(request: Request) -> dict[str, Any]:
    """Drop all models from memory; the next generation loads again."""
    engine = engine_of(request)
    await result_of(engine.submit_unload(), request, engine)
    return {}


@router.post("/sdapi/v1/reload-checkpoint")
async def reload_checkpoint(request: Request) -> dict[str, Any]:
    """Load the current model if it is not in memory."""
    engine = engine_of(request)
    await result_of(engine.submit_reload(), request, engine)
    return {}


@router.get("/sdapi/v1/loras")
def loras(request: Request) -> list[dict[str, Any]]:
    """Files of local folders and published LoRA checkpoints; `<lora:NAME:WEIGHT>` in a prompt applies one."""
    return [
        {"name": lora.name, "alias": lora.alias, "path": str(lora.path), "metadata": lora.metadata}
        for lora in engine_of(request).catalogue.loras.all()
    ]


@router.post("/sdapi/v1/refresh-loras")
def refresh_loras(request: Request) -> None:
    """Read folders and bucket again."""
    engine_of(request).catalogue.loras.refresh()


@router.get("/sdapi/v1/samplers")
def samplers() -> list[dict[str, Any]]:
    """Samplers; options.scheduler is what "Automatic" means."""
    return [
        {
            "name": sampler.name,
            "aliases": list(sampler.aliases),
            "options": {"scheduler": sampler.automatic} if sampler.automatic else {},
        }
        for sampler in SAMPLERS
    ]


@router.get("/sdapi/v1/schedulers")
def schedulers() -> list[dict[str, Any]]:
    """Schedules. Not every sampler can do every one: a wrong pair is refused with what the sampler can do."""
    return [
        {
            "name": schedule.name,
            "label": schedule.label,
            "aliases": None,
            "default_rho": schedule.default_rho,
            "need_inner_model": False,
        }
        for schedule in SCHEDULES
    ]


@router.post("/sdapi/v1/png-info")
def png_info(body: PngInfoRequest, request: Request) -> dict[str, Any]:
    """The infotext of a picture: as text, and taken apart. Empty for a picture without one."""
    image = images.open_image("image", body.image, engine_of(request).config.max_image_pixels)
    text, items = images.read_infotext(image)
    return {"info": text, "items": items, "parameters": infotext.as_parameters(text) if text else {}}


@router.get("/sdapi/v1/memory")
def memory_use() -> dict[str, Any]:
    """Bytes of main memory and GPU memory."""
    return {"ram": memory.ram(), "cuda": memory.cuda()}


@router.get("/sdapi/v1/cmd-flags")
def cmd_flags(request: Request) -> dict[str, Any]:
    """What corresponds to A1111's command line. No secrets."""
    engine = engine_of(request)
    config = engine.config
    return {
        "api": True,
        "nowebui": True,
        "api_auth": None,
        "listen": config.server.host not in ("127.0.0.1", "localhost", "::1"),
        "ckpt_dir": str(config.model_folders[0]) if config.model_folders else None,
        "lora_dir": str(config.lora_folders[0]) if config.lora_folders else None,
        "use_cpu": ["all"] if engine.device == "cpu" else [],
        "no_half": engine.precision == "fp32",
        "precision": engine.precision,
        "version": f"darkroom {VERSION}",
    }


@router.get("/sdapi/v1/upscalers")
def upscalers() -> list[dict[str, Any]]:
    """The ones that A1111 always has."""
    names = ("None", "Lanczos", "Nearest")
    return [{"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4} for name in names]


@router.get("/sdapi/v1/embeddings")
def embeddings() -> dict[str, Any]:
    """None."""
    return {"loaded": {}, "skipped": {}}


@router.get("/sdapi/v1/scripts")
def scripts() -> dict[str, list[str]]:
    """ControlNet is the only one."""
    return {"txt2img": [CONTROLNET_SCRIPT], "img2img": [CONTROLNET_SCRIPT]}


@router.get("/sdapi/v1/script-info")
def script_info() -> list[dict[str, Any]]:
    """ControlNet for both kinds of requests; its units are described at /controlnet."""
    return [
        {"name": CONTROLNET_SCRIPT, "is_alwayson": True, "is_img2img": is_img2img, "args": []}
        for is_img2img in (False, True)
    ]


def _add_empty_list(path: str) -> None:
    def nothing() -> list[Any]:
        return []

    router.add_api_route(path, nothing, methods=["GET"], description="Empty: this engine has none.")


for _name in ("sd-vae", "prompt-styles", "hypernetworks", "face-restorers", "realesrgan-models", "extensions",
              "latent-upscale-modes"):  # fmt: skip
    _add_empty_list(f"/sdapi/v1/{_name}")


def _add_idle_refresh(path: str) -> None:
    def nothing() -> None:
        return None

    router.add_api_route(path, nothing, methods=["POST"], description="Nothing to read again.")


for _name in ("refresh-vae", "refresh-embeddings"):
    _add_idle_refresh(f"/sdapi/v1/{_name}")
