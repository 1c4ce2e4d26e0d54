"""From encoded bytes to an upright RGB picture, within limits. Adapter over Pillow; called in worker threads."""

import io
import struct
import zlib
from typing import cast

from PIL import Image, ImageOps, UnidentifiedImageError

from captioner.errors import ImageFileTooLarge, ImageTooLarge, ImageUnreadable

MAX_MEGAPIXELS = 64
# Of a file in the bucket: what a session takes.
MAX_FILE_BYTES = 64 * 1024 * 1024
# Formats whose decoders are in every Pillow build; EPS and friends would start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

# What decoders raise for damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, struct.error, zlib.error)

# Pillow's own limit is laxer and does not say the size; ours is checked before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


def check_file_size(key: str, num_bytes: int) -> None:
    """Raises ImageFileTooLarge for an object that shall not be read into memory."""
    if num_bytes > MAX_FILE_BYTES:
        raise ImageFileTooLarge(key, num_bytes, MAX_FILE_BYTES)


def decode(data: bytes, index: int = 0) -> Image.Image:
    """RGB picture with EXIF orientation applied; transparency is laid over white; first frame of an animation.

    index: position in the request, for messages. Raises ImageUnreadable and ImageTooLarge.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_MEGAPIXELS * 1_000_000:
                raise ImageTooLarge(index, width, height, MAX_MEGAPIXELS)
            opened.seek(0)
            opened.load()
            return _to_rgb(ImageOps.exif_transpose(opened), index)
    except UnidentifiedImageError as error:
        raise ImageUnreadable(index, f"{len(data)} bytes that are none of {', '.join(FORMATS)}") from error
    except _DAMAGE as error:
        raise ImageUnreadable(index, f"the file is damaged or truncated ({error})") from error


def _to_rgb(image: Image.Image, index: int) -> Image.Image:
    if image.mode == "F":
        raise ImageUnreadable(index, "its pixels are floating-point numbers of no known range, expected 8 or 16 bits")
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        return _sixteen_bits_to_rgb(image.convert("I"), index)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _sixteen_bits_to_rgb(gray: Image.Image, index: int) -> Image.Image:
    """Scaled, where convert("L") would clip. Raises ImageUnreadable for a picture that needs more than 16 bits."""
    darkest, brightest = cast("tuple[int, int]", gray.getextrema())
    if darkest < 0 or brightest > 0xFFFF:
        raise ImageUnreadable(index, f"its pixels go from {darkest} to {brightest}, expected 8 or 16 bits (0 to 65535)")
    return gray.point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
