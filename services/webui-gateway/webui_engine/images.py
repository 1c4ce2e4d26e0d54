"""Pictures on the wire: base64 to RGB and back, limits, and the text inside PNG, JPEG and WEBP files.

Called by `planning.py` (what comes in), `controlnet_routes.py` and `generate.py` (what goes out). Imports no torch.
"""

import base64
import binascii
import io
import struct
import warnings
from typing import Any, Final

from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from webui_engine.errors import ImageInvalid

FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_USER_COMMENT: Final = 0x9286
_EXIF_FOLDER: Final = 0x8769
_WHITE: Final = (255, 255, 255)
# What Pillow raises for a damaged file depends on where its parsers stumble.
_DAMAGED: Final = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, struct.error,
)  # fmt: skip


def open_image(field: str, text: object, max_pixels: int) -> Image.Image:
    """Open base64 (with or without "data:image/png;base64,") and load it, limits checked before any pixel is decoded.

    Raises ImageInvalid for anything but one still picture of a common format, of at most max_pixels.
    """
    data = _decode_base64(field, text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels is the limit here
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_header(field, image, max_pixels)
            image.load()
    except Image.DecompressionBombError as error:
        raise ImageInvalid(field, f"{error}; expected at most {max_pixels} pixels") from error
    except _DAMAGED as error:
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else f"damaged: {error}"
        raise ImageInvalid(
            field, f"found {len(data)} bytes that are {reason}; expected {', '.join(FORMATS)}"
        ) from error
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB: EXIF orientation applied, transparency over white, 16 bits scaled down."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _to_eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*_WHITE, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


def encode_png(image: Image.Image, infotext: str = "") -> str:
    """Base64 of a PNG, the infotext in its "parameters" chunk."""
    chunks = PngImagePlugin.PngInfo()
    if infotext:
        chunks.add_text("parameters", infotext) if infotext.isascii() else chunks.add_itxt("parameters", infotext)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=chunks)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def read_infotext(image: Image.Image) -> tuple[str, dict[str, Any]]:
    """The infotext of a picture ("" if there is none) and its other text items.

    PNG: the "parameters" chunk; JPEG and WEBP: EXIF UserComment; GIF: the comment.
    """
    items: dict[str, Any] = {
        str(key): value for key, value in image.info.items() if isinstance(value, str | int | float) and key != "exif"
    }
    text = items.pop("parameters", "")
    comment = image.getexif().get_ifd(_EXIF_FOLDER).get(_USER_COMMENT)
    if not text and isinstance(comment, bytes):
        text = _decode_user_comment(comment)
    if not text and isinstance(image.info.get("comment"), bytes):
        text = image.info["comment"].decode("utf-8", "replace")
    return str(text), items


def fit(image: Image.Image, width: int, height: int, crop: bool) -> Image.Image:
    """Resize to width x height; `crop` keeps the shape and cuts what is too much from both sides."""
    if crop:
        return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def with_short_side(image: Image.Image, side: int) -> Image.Image:
    """Resize to `side` px on the short side, keeping the shape; see `check_short_side` for pictures from outside."""
    return image.resize(_size_with_short_side(image, side), Image.Resampling.LANCZOS)


def check_short_side(field: str, image: Image.Image, side: int, max_pixels: int) -> None:
    """Refuse what `with_short_side` would blow up: a strip one pixel wide becomes millions of pixels long."""
    width, height = _size_with_short_side(image, side)
    if width * height > max_pixels:
        found = f"{image.width}x{image.height}, which is {width}x{height} with {side} px on the short side"
        raise ImageInvalid(field, f"found {found}, expected at most {max_pixels} pixels")


def _size_with_short_side(image: Image.Image, side: int) -> tuple[int, int]:
    factor = side / min(image.size)
    return max(1, round(image.width * factor)), max(1, round(image.height * factor))


def _decode_base64(field: str, text: object) -> bytes:
    if not isinstance(text, str) or not text:
        raise ImageInvalid(field, f"Invalid encoded image: found {type(text).__name__}, expected a base64 string")
    if text.startswith(("http://", "https://")):
        raise ImageInvalid(field, "Requests not allowed: send the picture itself as base64, not its URL")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageInvalid(field, f"Invalid encoded image: not base64 ({error})") from error


def _check_header(field: str, image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        size = f"{image.width}x{image.height}"
        raise ImageInvalid(field, f"found {size} = {image.width * image.height} pixels, expected at most {max_pixels}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageInvalid(field, f"found an animation of {frames} frames, expected one still picture")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit and wider grey levels: divided by 256 where they need it, so that white stays white."""
    low, high = image.getextrema()
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise ImageInvalid("image", f"mode {image.mode} is not supported")
    if image.mode == "F":
        scale = 255.0 if high <= 1.0 else 1.0
    else:
        scale = 1 / 256 if high > 255 or image.mode.startswith("I;16") else 1.0
    return image.convert("F").point(lambda value: value * scale).convert("L")


def _decode_user_comment(comment: bytes) -> str:
    """EXIF UserComment: 8 bytes name the encoding, then the text (EXIF 2.32, 4.6.5)."""
    code, body = comment[:8], comment[8:]
    if code.startswith(b"UNICODE"):
        byte_order = "utf-16-be" if body[:1] == b"\0" else "utf-16-le"
        return body.decode(byte_order, "replace")
    return body.decode("utf-8", "replace") if code.startswith((b"ASCII", b"\0")) else comment.decode("utf-8", "replace")
