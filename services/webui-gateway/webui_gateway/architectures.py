"""What each architecture of diffusion models can do, and the base models that everybody knows.

Data: numbers from the model cards and reference configurations of each family. `width` is what a control net must share
with a UNet: its cross-attention dimension and the channels of its levels.
"""

from dataclasses import dataclass, replace
from typing import Final

ALL_PRECISIONS: Final = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Width:
    """Dimensions that a control net and its UNet must have in common."""

    cross_attention_dim: int
    channels: tuple[int, ...]


@dataclass(frozen=True)
class BaseModel:
    """A base model or a model trained from one. Edges in pixels; step_px: edges are multiples of it."""

    name: str
    architecture: str
    prediction_type: str
    native_px: int
    step_px: int = 8
    precisions: tuple[str, ...] = ALL_PRECISIONS
    width: Width | None = None

    @property
    def min_px(self) -> int:
        """Smallest edge: below half the native size pictures fall apart."""
        return max(64, self.native_px // 2)

    @property
    def max_px(self) -> int:
        """Greatest edge: beyond twice the native size subjects repeat."""
        return 2 * self.native_px


SD1_WIDTH: Final = Width(768, (320, 640, 1280, 1280))
SD2_WIDTH: Final = Width(1024, (320, 640, 1280, 1280))
SDXL_WIDTH: Final = Width(2048, (320, 640, 1280))

PREDEFINED: Final = (
    BaseModel("sd15", "sd15", "epsilon", 512, width=SD1_WIDTH),
    BaseModel("sd21-512", "sd21-512", "epsilon", 512, width=SD2_WIDTH),
    BaseModel("sd21-768", "sd21-768", "v_prediction", 768, width=SD2_WIDTH),
    BaseModel("sdxl", "sdxl", "epsilon", 1024, width=SDXL_WIDTH),
    # Half precision overflows in Flux's transformer.
    BaseModel("flux-dev", "flux-dev", "flow", 1024, step_px=16, precisions=("fp32", "bf16")),
    BaseModel("flux-schnell", "flux-schnell", "flow", 1024, step_px=16, precisions=("fp32", "bf16")),
)
BY_ARCHITECTURE: Final = {model.architecture: model for model in PREDEFINED}


def trained_from(
    name: str, architecture: str, prediction_type: str, resolution_px: int, base: BaseModel | None
) -> BaseModel:
    """A checkpoint's own entry: what its manifest says, the rest from its base model or architecture."""
    template = base or BY_ARCHITECTURE.get(architecture)
    if template is None:
        return BaseModel(name, architecture, prediction_type, resolution_px)
    return replace(
        template,
        name=name,
        architecture=architecture,
        prediction_type=prediction_type or template.prediction_type,
        native_px=resolution_px or template.native_px,
    )
