"""Pictures from bytes and back: what is accepted, upright RGB out of every mode, files of the same format.

Adapter over Pillow; `session_store` checks uploads with it, `cropping` reads and writes. Called in worker threads.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath

from PIL import Image, ImageOps, UnidentifiedImageError

from trainer.errors import ImageAnimated, ImageTooLarge, ImageTooSmall, ImageUnreadable

MAX_MEGAPIXELS = 64
MIN_EDGE_PX = 16
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
# A JPEG with further pictures behind the first, as phones write for depth or preview: the first one is the photo.
_STILL_FORMATS = ("MPO",)
_ORIENTATION = 0x0112
# What decoders raise for damaged files, beside OSError.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)

# Pillow's own limit is laxer and does not say the size; ours is checked before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Size:
    """Edges of an upright picture in pixels."""

    width_px: int
    height_px: int


def check(data: bytes, file: str) -> Size:
    """Decode the whole file and say how large its picture is after EXIF orientation.

    Raises ImageUnreadable, ImageTooLarge, ImageTooSmall and ImageAnimated.
    """
    with _opened(data, file) as image:
        image.load()
        width, height = image.size
        if image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
            width, height = height, width
    if min(width, height) < MIN_EDGE_PX:
        raise ImageTooSmall(file, width, height, MIN_EDGE_PX)
    return Size(width, height)


def decode(data: bytes, file: str) -> Image.Image:
    """RGB with EXIF orientation applied, transparency over white, 16 bits scaled to 8. Raises as `check` does."""
    with _opened(data, file) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        rgb = _to_rgb(upright)
        # A profile of another colour space would bend the colours that now are RGB.
        profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
    rgb.info = {"icc_profile": profile} if profile else {}
    return rgb


def size_of(data: bytes, file: str) -> Size:
    """Edges as stored, from the header alone. Raises as `check` does."""
    with _opened(data, file) as image:
        return Size(*image.size)


def encode(image: Image.Image, file: str) -> bytes:
    """The file in the format of its ending; JPEG at quality 95 without chroma subsampling, the others without loss."""
    buffer = io.BytesIO()
    profile = image.info.get("icc_profile")
    match PurePath(file).suffix.lower():
        case ".jpg" | ".jpeg":
            image.save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=profile)
        case ".webp":
            image.save(buffer, "WEBP", lossless=True, icc_profile=profile)
        case _:
            image.save(buffer, "PNG", icc_profile=profile)
    return buffer.getvalue()


@contextmanager
def _opened(data: bytes, file: str) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_MEGAPIXELS * 1_000_000:
                raise ImageTooLarge(file, width, height, MAX_MEGAPIXELS)
            num_frames = getattr(image, "n_frames", 1)
            if num_frames > 1 and image.format not in _STILL_FORMATS:
                raise ImageAnimated(file, num_frames)
            yield image
    except UnidentifiedImageError as error:
        raise ImageUnreadable(file, f"is none of {', '.join(_FORMATS)} ({_start(data)})") from error
    except _DAMAGE as error:
        raise ImageUnreadable(file, f"is damaged or truncated ({error}); export or copy it again") from error


def _start(data: bytes) -> str:
    return f"it begins with {data[:8].hex(' ')}" if data else "it is empty"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        # convert("L") would clip 16 bits instead of scaling them.
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
