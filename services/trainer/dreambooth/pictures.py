"""One image file to RGB pixels, or a sentence that says why not. `dataset` calls this for every image before step 0.

The bucket can be edited by hand, so nothing that the control plane checked at upload is taken for granted.
"""

import io
import struct
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS: Final = ("PNG", "JPEG", "WEBP")
MIN_SIDE_PX: Final = 16
# What Pillow calls a JPEG with further pictures behind the photo, as phones write for depth or preview.
_SEVERAL_PICTURES: Final = "MPO"
# Pillow's own limit, above which a file is more likely an attack than a photo. Checked on the header.
MAX_PIXELS: Final = 89_478_485


class Undecodable(Exception):
    """The message continues the sentence "<file name>: ..."."""


def decode(content: bytes) -> Image.Image:
    """Upright RGB of any mode: transparency becomes white, 16-bit grey keeps its upper 8 bits. Raises Undecodable."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check(image)
            image.load()
            upright = ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise Undecodable(f"has too many pixels: expected at most {MAX_PIXELS:,}; make it smaller") from error
    except UnidentifiedImageError as error:
        raise Undecodable(f"is not an image of the kinds {', '.join(FORMATS)}; remove it or convert it") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise Undecodable(f"is damaged or cut off ({error}); upload it again") from error
    return _as_rgb(upright)


def cover(image: Image.Image, cut: tuple[int, int]) -> np.ndarray:
    """Bilinear resize to the smallest size that covers `cut` (height, width); uint8, shape (height, width, 3).

    For a square that is the shorter side at its edge and the longer one rounded down, as torchvision's Resize does.
    """
    height, width = cut
    if image.width * height <= image.height * width:
        size = (width, max(height, int(width * image.height / image.width)))
    else:
        size = (max(width, int(height * image.width / image.height)), height)
    resized = image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.uint8)  # a copy: torch wants memory it may write


def _check(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Undecodable(f"has {width} x {height} pixels: expected at most {MAX_PIXELS:,}; make it smaller")
    if min(width, height) < MIN_SIDE_PX:
        raise Undecodable(f"has {width} x {height} pixels: expected at least {MIN_SIDE_PX} on each side")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != _SEVERAL_PICTURES:
        raise Undecodable(f"is an animation of {frames} frames: expected one picture; save the frame you mean")


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow's own conversion would clip 16-bit values to white
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray((levels >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
