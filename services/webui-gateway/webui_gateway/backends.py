"""One back end: an engine or a real A1111 server, spoken to over its REST API. Adapter over httpx."""

import asyncio
import json
from typing import Any, Final

import httpx

from webui_gateway.errors import BackendAway, BackendFailed, BackendRefused, RequestInvalid
from webui_gateway.job import Progress
from webui_gateway.loras import LoraLine, family_of
from webui_gateway.models import Listing
from webui_gateway.samplers import Abilities

_CONNECT_SECONDS: Final = 5.0
# A generation on a slow machine may take very long; that the back end still lives is asked beside it, by its progress.
_GENERATION_SECONDS: Final = 3600.0
_QUERY_SECONDS: Final = 10.0
# "Not now": a proxy without its server, an engine that starts or stops, a full queue.
_PASSING: Final = (429, 502, 503, 504)
_CREDENTIALS_REFUSED: Final = (401, 403)
# Flags of A1111 that hold or lead to secrets.
_SECRET_FLAGS: Final = ("api_auth", "gradio_auth", "gradio_auth_path", "ngrok", "ngrok_options", "tls_keyfile")


class Backend:
    """A back end at a URL. alive, trouble: how it last answered; `gateway` keeps them.

    Methods raise BackendAway, BackendRefused (4xx) and BackendFailed (anything else that is wrong); those that send a body
    also RequestInvalid, when JSON cannot say it.
    """

    def __init__(self, url: str, token: str) -> None:
        parsed = httpx.URL(url)
        auth = (parsed.username, parsed.password) if parsed.username else None
        headers = {"Authorization": f"Bearer {token}"} if token and auth is None else {}
        self.url = str(parsed.copy_with(username=None, password=None)).rstrip("/")
        timeout = httpx.Timeout(_QUERY_SECONDS, connect=_CONNECT_SECONDS)
        self._client = httpx.AsyncClient(
            base_url=self.url, auth=auth, headers=headers, timeout=timeout, trust_env=False
        )
        self.abilities = Abilities()
        self.alive = False
        self.trouble = "it was not asked yet"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def learn(self) -> None:
        """Ask for what changes only with a restart: samplers, schedules, scripts, precision."""
        samplers, schedulers, scripts, flags, memory = await asyncio.gather(
            self.get("/sdapi/v1/samplers"),
            self._get_or("/sdapi/v1/schedulers", []),  # A1111 has them since 1.9
            self.get("/sdapi/v1/scripts"),
            self._get_or("/sdapi/v1/cmd-flags", {}),
            self._get_or("/sdapi/v1/memory", {}),
        )
        try:
            self.abilities = Abilities(
                samplers={
                    str(n).lower(): line["name"]
                    for line in samplers
                    for n in (*(line.get("aliases") or ()), line["name"])
                },
                schedulers={
                    str(n).lower(): line["label"] for line in schedulers for n in (line["name"], line["label"])
                },
                scripts={tab: frozenset(str(name).lower() for name in names) for tab, names in scripts.items()},
                precisions=_precisions(flags, memory),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise BackendFailed(self.url, 200, f"this is not the API of A1111: {error!r}") from error

    async def models(self) -> list[Listing]:
        """What it can draw with."""
        try:
            return [
                Listing(
                    title=str(line["title"]),
                    model_name=str(line["model_name"]),
                    sha256=str(line.get("sha256") or ""),
                    hash=str(line.get("hash") or ""),
                    filename=str(line.get("filename") or ""),
                )
                for line in await self.get("/sdapi/v1/sd-models")
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise BackendFailed(self.url, 200, f"its sd-models are not those of A1111: {error!r}") from error

    async def control_net_titles(self) -> list[str]:
        """Titles of its control nets; none without the extension."""
        answer = await self._get_or("/controlnet/model_list", {})
        return [str(title) for title in answer.get("model_list", ()) if title != "None"]

    async def loras(self) -> list[LoraLine]:
        """Its LoRAs; none without the extension."""
        try:
            return [
                LoraLine(str(line["name"]), str(line.get("alias") or ""), family_of(line.get("metadata") or {}))
                for line in await self._get_or("/sdapi/v1/loras", [])
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise BackendFailed(self.url, 200, f"its loras are not those of A1111: {error!r}") from error

    async def generate(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """txt2img or img2img; returns its JSON, which has `images` and `info`.

        A1111 draws with the model it has when it does not find the wanted one any more: that counts as BackendFailed.
        """
        answer = await self._send("POST", path, body, _GENERATION_SECONDS)
        if not isinstance(answer, dict) or not isinstance(answer.get("images"), list) or "info" not in answer:
            raise BackendFailed(self.url, 200, "its answer has no pictures and no info")
        wanted = str(body.get("override_settings", {}).get("sd_model_checkpoint", ""))
        drawn = _model_hash(answer["info"])
        if drawn and " [" in wanted and not wanted.endswith(f" [{drawn}]"):
            raise BackendFailed(self.url, 200, f"it drew with the model of hash {drawn} instead of {wanted}")
        return answer

    async def progress(self) -> Progress:
        """How far the present job is."""
        answer = await self.get("/sdapi/v1/progress")
        state = answer.get("state") or {}
        job = str(state.get("job") or "")
        return Progress(
            fraction=min(1.0, max(0.0, float(answer.get("progress") or 0))),
            step=int(state.get("sampling_step") or 0),
            num_steps=int(state.get("sampling_steps") or 0),
            eta_seconds=float(answer.get("eta_relative") or 0),
            preview=str(answer.get("current_image") or ""),
            # A1111 writes other words here while it draws for its API.
            task=job if job.startswith("task(") else "",
            raw=answer,
        )

    async def flags(self) -> dict[str, Any]:
        """Its command line, without secrets: A1111 shows its own passwords here."""
        flags = await self.get("/sdapi/v1/cmd-flags")
        return {name: None if name in _SECRET_FLAGS else value for name, value in flags.items()}

    async def look_again(self) -> None:
        """Read the folders of models and LoRAs again."""
        await self._send("POST", "/sdapi/v1/refresh-checkpoints", None, _QUERY_SECONDS)
        try:
            await self._send("POST", "/sdapi/v1/refresh-loras", None, _QUERY_SECONDS)
        except BackendRefused as error:
            if error.status != 404:  # A1111 without the extension
                raise

    async def interrupt(self) -> None:
        """Stop the present job after its current step."""
        await self._send("POST", "/sdapi/v1/interrupt", None, _QUERY_SECONDS)

    async def get(self, path: str, params: dict[str, str] | None = None) -> Any:
        """JSON of a GET."""
        return await self._send("GET", path, None, _QUERY_SECONDS, params)

    async def post(self, path: str, body: Any) -> Any:
        """JSON of a POST; loading a model may take its time."""
        return await self._send("POST", path, body, _GENERATION_SECONDS)

    async def _get_or(self, path: str, missing: Any) -> Any:
        """JSON of a GET, or `missing` if there is no such route."""
        try:
            return await self.get(path)
        except BackendRefused as error:
            if error.status == 404:
                return missing
            raise

    async def _send(
        self, method: str, path: str, body: Any, seconds: float, params: dict[str, str] | None = None
    ) -> Any:
        timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)
        try:
            request = self._client.build_request(method, path, json=body, params=params, timeout=timeout)
        except ValueError as error:  # NaN, infinity, half a surrogate pair
            raise RequestInvalid(f"the body cannot be sent on as JSON: {error}") from error
        try:
            answer = await self._client.send(request)
        except httpx.TransportError as error:
            raise BackendAway(self.url, repr(error), isinstance(error, httpx.ReadTimeout)) from error
        try:
            payload = answer.json()
        except ValueError:
            payload = answer.text
        if answer.status_code in _PASSING:
            raise BackendAway(self.url, f"status {answer.status_code}: {payload}")
        if answer.status_code in _CREDENTIALS_REFUSED:
            advice = "it refuses the gateway's credentials; check DARKROOM_ENGINE_TOKEN, or user:password@ in its URL"
            raise BackendFailed(self.url, answer.status_code, advice)
        if 400 <= answer.status_code < 500:
            raise BackendRefused(answer.status_code, payload)
        if not answer.is_success or isinstance(payload, str):
            raise BackendFailed(self.url, answer.status_code, payload)
        return payload


def _model_hash(info: Any) -> str:
    """The hash of the model that drew, "" if the reply does not say."""
    try:
        found = info if isinstance(info, dict) else json.loads(info)
    except (TypeError, ValueError):  # servers that speak a part of the API leave it empty
        return ""
    return str(found.get("sd_model_hash") or "") if isinstance(found, dict) else ""


def _precisions(flags: dict[str, Any], memory: dict[str, Any]) -> frozenset[str]:
    """What it runs in: as it says, else as A1111 decides: fp32 with --no-half, --precision full or without a GPU, else fp16."""
    named = flags.get("precision")
    if named in ("fp32", "fp16", "bf16"):
        return frozenset((named,))
    has_gpu = "error" not in (memory.get("cuda") or {"error": ""}) and "all" not in (flags.get("use_cpu") or ())
    full = flags.get("no_half") or named == "full" or not has_gpu
    return frozenset(("fp32" if full else "fp16",))
