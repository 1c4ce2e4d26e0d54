"""Configuration of the captioner, read once from the environment by `__main__`."""

from dataclasses import dataclass

from artifacts.config import StoreConfig
from chassis.config import ServerConfig, setting


@dataclass(frozen=True)
class CaptionerConfig:
    """Everything the captioner can be told."""

    server: ServerConfig
    store: StoreConfig
    model: str = setting(
        "DARKROOM_CAPTION_MODEL", "folder of a BLIP-2 generation model (Blip2ForConditionalGeneration)"
    )
    retrieval_model: str = setting(
        "DARKROOM_RETRIEVAL_MODEL", "folder of a BLIP-2 retrieval model for Embed and Match; empty: none", default=""
    )
    device: str = setting(
        "DARKROOM_DEVICE", "torch device, such as cpu or cuda:0; auto: a GPU if there is one", default="auto"
    )
    precision: str = setting(
        "DARKROOM_PRECISION", "number format of the weights in memory", default="fp32", choices=("fp32", "bf16", "fp16")
    )
    max_batch_images: int = setting(
        "DARKROOM_MAX_BATCH_IMAGES", "most images in one forward pass", default=16, minimum=1, maximum=1024
    )
    max_queue_images: int = setting(
        "DARKROOM_MAX_QUEUE_IMAGES", "most images that may wait; more answer RESOURCE_EXHAUSTED", default=512, minimum=1
    )
    batch_window_milliseconds: int = setting(
        "DARKROOM_BATCH_WINDOW_MS",
        "longest wait of the first image of a batch for images that are still being decoded",
        default=500,
        minimum=0,
        maximum=60_000,
    )
