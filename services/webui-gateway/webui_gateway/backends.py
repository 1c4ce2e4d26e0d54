"""One back end: an engine or a real A1111 server, spoken to over its REST API. Adapter over httpx."""

from typing import Any

import httpx

from webui_gateway.errors import BackendFailed
from webui_gateway.jobs import Progress
from webui_gateway.models import Listing

_CONNECT_SECONDS = 5.0
# A generation on a slow machine may take very long; a dead connection is noticed by TCP, not by this.
_GENERATION_SECONDS = 3600.0
_QUERY_SECONDS = 10.0
UNREACHABLE = (httpx.TransportError,)


class Backend:
    """A back end at a URL. Methods raise httpx.TransportError when it is away, BackendFailed when it refuses."""

    def __init__(self, url: str, token: str) -> None:
        parsed = httpx.URL(url)
        auth = (parsed.username, parsed.password) if parsed.username else None
        headers = {"Authorization": f"Bearer {token}"} if token and auth is None else {}
        self.url = str(parsed.copy_with(username=None, password=None)).rstrip("/")
        timeout = httpx.Timeout(_QUERY_SECONDS, connect=_CONNECT_SECONDS)
        self._client = httpx.AsyncClient(
            base_url=self.url, auth=auth, headers=headers, timeout=timeout, trust_env=False
        )
        self.precisions: frozenset[str] = frozenset()
        self.samplers: frozenset[str] = frozenset()
        self.alive = False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def models(self) -> list[Listing]:
        """What it can draw with."""
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

    async def control_net_titles(self) -> list[str]:
        """Titles of its control nets; none without the extension."""
        try:
            answer = await self.get("/controlnet/model_list")
        except BackendFailed as error:
            if error.status == 404:
                return []
            raise
        return [str(title) for title in answer.get("model_list", ()) if title != "None"]

    async def learn(self) -> None:
        """Ask once for what does not change: samplers with their aliases, precision."""
        lines = await self.get("/sdapi/v1/samplers")
        self.samplers = frozenset(str(name) for line in lines for name in (line["name"], *line.get("aliases", ())))
        flags = await self.get("/sdapi/v1/cmd-flags")
        self.precisions = _precisions(flags)

    async def generate(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """txt2img or img2img; returns its JSON."""
        answer: dict[str, Any] = await self._send("POST", path, body, _GENERATION_SECONDS)
        return answer

    async def progress(self) -> Progress:
        """How far the present job is."""
        answer = await self.get("/sdapi/v1/progress")
        state = answer.get("state", {})
        return Progress(
            fraction=float(answer.get("progress", 0)),
            step=int(state.get("sampling_step", 0)),
            num_steps=int(state.get("sampling_steps", 0)),
            eta_seconds=float(answer.get("eta_relative", 0)),
            preview=str(answer.get("current_image") or ""),
            raw=answer,
        )

    async def interrupt(self) -> None:
        """Stop the present job after its current step."""
        await self._send("POST", "/sdapi/v1/interrupt", None, _QUERY_SECONDS)

    async def get(self, path: str, params: dict[str, str] | None = None) -> Any:
        """JSON of a GET."""
        return await self._send("GET", path, None, _QUERY_SECONDS, params)

    async def post(self, path: str, body: Any) -> Any:
        """JSON of a POST."""
        return await self._send("POST", path, body, _GENERATION_SECONDS)

    async def _send(
        self, method: str, path: str, body: Any, seconds: float, params: dict[str, str] | None = None
    ) -> Any:
        timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)
        answer = await self._client.request(method, path, json=body, params=params, timeout=timeout)
        try:
            payload = answer.json()
        except ValueError:
            payload = answer.text
        if answer.status_code >= 400:
            raise BackendFailed(self.url, answer.status_code, payload)
        return payload


def _precisions(flags: dict[str, Any]) -> frozenset[str]:
    """What the command line flags say it runs in; engines name theirs, A1111 has --no-half and --precision."""
    named = flags.get("precision")
    if named in ("fp32", "fp16", "bf16"):
        return frozenset((named,))
    if flags.get("no_half") or named == "full":
        return frozenset(("fp32",))
    return frozenset(("fp16",))
