"""Configuration of the gateway, read once from the environment by `__main__`."""

from dataclasses import dataclass
from pathlib import Path

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

    @property
    def engine_urls(self) -> list[str]:
        """The back ends, without trailing slashes."""
        return [url.strip().rstrip("/") for url in self.engines.split(",") if url.strip()]

    @property
    def model_folders(self) -> list[Path]:
        """Folders of `models`."""
        return [Path(path) for path in self.models.split(":") if path]

    @property
    def controlnet_folders(self) -> list[Path]:
        """Folders of `controlnets`."""
        return [Path(path) for path in self.controlnets.split(":") if path]
