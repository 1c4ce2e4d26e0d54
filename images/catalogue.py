"""The images there are."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Image:
    """One image. dockerfile: relative to the repository's root; torch: whether it comes in a CPU and a CUDA variant."""

    name: str
    dockerfile: str
    torch: bool = False

    def variant(self, torch: str) -> str:
        """What is behind the tag, and behind the name of a file about it: "-cuda" or nothing."""
        return "-cuda" if self.torch and torch == "cuda" else ""


IMAGES = (
    Image("darkroom-captioner", "services/captioner/Dockerfile", torch=True),
    Image("darkroom-trainer", "services/trainer/Dockerfile"),
    Image("darkroom-dreambooth", "services/trainer/dreambooth.Dockerfile", torch=True),
    Image("darkroom-converter", "services/converter/Dockerfile"),
    Image("darkroom-webui-gateway", "services/webui-gateway/Dockerfile"),
    Image("darkroom-webui-engine", "services/webui-gateway/engine.Dockerfile", torch=True),
    Image("darkroom-tools", "cli/Dockerfile"),
)
