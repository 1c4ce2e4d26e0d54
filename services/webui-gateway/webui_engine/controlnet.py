"""The pixels of ControlNet units: the canny preprocessor, and fitting a control picture to the picture drawn.

Called by `generate.py` for units and by the routes for /controlnet/detect.
"""

import cv2
import numpy as np
import torch
from PIL import Image

from webui_engine import images
from webui_engine.control_units import Unit


def control_map(unit: Unit, width: int, height: int) -> Image.Image:
    """What the control net sees: RGB of width x height px. Edges are found at the size they are used at, unless the unit
    asks for a resolution."""
    if unit.module == "none":
        return images.fit(unit.image, width, height, unit.crop)
    if unit.resolution is None:
        return canny(images.fit(unit.image, width, height, unit.crop), unit.low, unit.high)
    found = canny(images.with_short_side(unit.image, unit.resolution), unit.low, unit.high)
    return images.fit(found, width, height, unit.crop)


def detect(image: Image.Image, module: str, resolution: int, low: float, high: float) -> Image.Image:
    """The preprocessor alone, at `resolution` px on the short side; "none" returns the picture."""
    return image if module == "none" else canny(images.with_short_side(image, resolution), low, high)


def canny(image: Image.Image, low: float, high: float) -> Image.Image:
    """White edges on black, RGB, by cv2.Canny with thresholds 0 to 255 (Canny 1986)."""
    return Image.fromarray(cv2.Canny(np.asarray(image), low, high)).convert("RGB")


def as_tensor(picture: Image.Image, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """RGB -> (1, 3, H, W) in [0, 1], as ControlNetModel takes it."""
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None]
    return pixels.to(device=device, dtype=dtype) / 255
