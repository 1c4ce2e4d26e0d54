"""Configuration of the gateway, read once from the environment by `__main__`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from artifacts.config import StoreConfig
from chassis.config import ServerConfig, setting


@dataclass(frozen=True)
class GatewayConfig:
    """Everything the gateway can be told. server describes the gRPC port; http_port the A1111 API."""

    server: ServerConfig
    store: StoreConfig
    engines: str = setting(
        "DARKROOM_ENGINES",
        "back ends, URLs of engines or A1111 servers separated by commas; user:password@ is sent as HTTP Basic",
        secret=True,
    )
    engine_token: str = setting("DARKROOM_ENGINE_TOKEN", "token that engines ask for", default="", secret=True)
    http_port: int = setting(
        "DARKROOM_HTTP_PORT", "port of the A1111 API; 0 takes any free one", default=7860, minimum=0, maximum=65535
    )
    models: str = setting(
        "DARKROOM_MODELS", "folders of models whose configurations the registry reads, separated by ':'", default=""
    )
    controlnets: str = setting(
        "DARKROOM_CONTROLNETS",
        "folders of control nets whose configurations the registry reads, separated by ':'",
        default="",
    )
    default_model: str = setting(
        "DARKROOM_DEFAULT_MODEL", "model of requests that name none; empty: the first that a back end has", default=""
    )
    max_queue: int = setting("DARKROOM_MAX_QUEUE", "most generations that may wait", default=64, minimum=1)

    def problems(self) -> Iterator[str]:
        """What is wrong with the URLs of the back ends. Passwords in them are not repeated."""
        if not self.engine_urls:
            yield "DARKROOM_ENGINES names no back end"
        for number, url in enumerate(self.engine_urls, 1):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                yield f"DARKROOM_ENGINES: entry {number} is not a URL like http://host:7865 or http://user:password@host:7860"

    @property
    def engine_urls(self) -> list[str]:
        """The back ends, each once, without trailing slashes."""
        return list(dict.fromkeys(url.strip().rstrip("/") for url in self.engines.split(",") if url.strip()))

    @property
    def model_folders(self) -> list[Path]:
        """Folders of `models`."""
        return [Path(path) for path in self.models.split(":") if path]

    @property
    def controlnet_folders(self) -> list[Path]:
        """Folders of `controlnets`."""
        return [Path(path) for path in self.controlnets.split(":") if path]
