"""Configuration of the converter, read once from the environment by `__main__`."""

from dataclasses import dataclass

from artifacts.config import StoreConfig
from chassis.config import ServerConfig, setting


@dataclass(frozen=True)
class ConverterConfig:
    """Everything the converter can be told."""

    server: ServerConfig
    store: StoreConfig
    num_workers: int = setting(
        "DARKROOM_CONVERTER_WORKERS",
        "conversions at the same time; each takes up to 50 MiB of memory beside the 70 MiB of the service",
        default=1,
        minimum=1,
        maximum=16,
    )
