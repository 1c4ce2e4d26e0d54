"""The engine's configuration, read once by `__main__`."""

import os
from dataclasses import dataclass
from pathlib import Path

from artifacts.config import StoreConfig
from chassis.config import ServerConfig, setting

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "fp16", "bf16")


@dataclass(frozen=True)
class EngineConfig:
    """Where models come from and what one engine may use. Without a store it serves its folders alone."""

    server: ServerConfig
    store: StoreConfig | None = None
    models: str = setting(
        "DARKROOM_MODELS",
        "folders of models, separated by ':'; a model is a diffusers folder, a .safetensors or a .ckpt file in one",
        default="",
    )
    controlnets: str = setting(
        "DARKROOM_CONTROLNETS",
        "folders whose sub-folders are diffusers ControlNet models, separated by ':'",
        default="",
    )
    loras: str = setting(
        "DARKROOM_LORAS",
        "folders of LoRA files (.safetensors in kohya's layout, sub-folders too), separated by ':'",
        default="",
    )
    default_model: str = setting(
        "DARKROOM_DEFAULT_MODEL", "model that is loaded at the start; empty takes the first by name", default=""
    )
    cache_dir: str = setting(
        "DARKROOM_CACHE_DIR",
        "folder for digests and for checkpoints copied from the bucket",
        default="~/.cache/darkroom",
    )
    models_in_memory: int = setting(
        "DARKROOM_MODELS_IN_MEMORY",
        "models kept loaded, the least recently used goes",
        default=2,
        minimum=1,
        maximum=64,
    )
    device: str = setting("DARKROOM_DEVICE", "where models run", default="auto", choices=DEVICES)
    precision: str = setting(
        "DARKROOM_PRECISION",
        "number format of the weights; auto is fp16 on cuda, fp32 on cpu",
        default="auto",
        choices=PRECISIONS,
    )
    listing_seconds: float = setting(
        "DARKROOM_LISTING_SECONDS", "how long the list of the bucket's checkpoints is good", default=2.0, minimum=0
    )
    max_image_pixels: int = setting(
        "DARKROOM_MAX_IMAGE_PIXELS", "largest picture taken in, width times height", default=4096 * 4096, minimum=64
    )
    max_images: int = setting(
        "DARKROOM_MAX_IMAGES", "most pictures of one request, batch_size times n_iter", default=64, minimum=1
    )
    max_queue: int = setting("DARKROOM_MAX_QUEUE", "most requests that wait", default=100, minimum=1)

    @property
    def model_folders(self) -> tuple[Path, ...]:
        """The folders of DARKROOM_MODELS."""
        return _folders(self.models)

    @property
    def controlnet_folders(self) -> tuple[Path, ...]:
        """The folders of DARKROOM_CONTROLNETS."""
        return _folders(self.controlnets)

    @property
    def lora_folders(self) -> tuple[Path, ...]:
        """The folders of DARKROOM_LORAS."""
        return _folders(self.loras)

    @property
    def cache_folder(self) -> Path:
        """The cache folder, with `~` expanded."""
        return Path(self.cache_dir).expanduser()


def _folders(text: str) -> tuple[Path, ...]:
    return tuple(Path(part).expanduser() for part in text.split(os.pathsep) if part)
