"""What `torture` imports once before it forks: everything that takes seconds. Also its base model and pictures."""

import io
from pathlib import Path

import bitsandbytes.optim  # noqa: F401
import peft  # noqa: F401
import prodigyopt  # noqa: F401
import tensorboardX  # noqa: F401
import torch
from dreambooth import training  # noqa: F401
from PIL import Image, ImageDraw

from tests.dreambooth import micro_model

torch.set_num_threads(1)


def build_base(folder: Path) -> Path:
    """The micro model."""
    made: Path = micro_model.build(folder)
    return made


def picture_bytes(number: int, size: tuple[int, int]) -> bytes:
    """A coloured disc, another one for each number."""
    image = Image.new("RGB", size, (40 * number % 256, 90, 120))
    ImageDraw.Draw(image).ellipse((8, 8 + number, 40, 40 + number), fill=(250, 60 * number % 256, 20))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
