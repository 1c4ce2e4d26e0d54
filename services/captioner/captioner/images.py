"""From encoded bytes to an upright RGB picture, within limits. Adapter over Pillow; called in worker threads."""

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from captioner.errors import ImageTooLarge, ImageUnreadable

MAX_MEGAPIXELS = 64
# Formats whose decoders are in every Pillow build; EPS and friends would start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def decode(data: bytes, index: int = 0) -> Image.Image:
    """RGB picture with EXIF orientation applied; transparency is laid over white; first frame of an animation.

    index: position in the request, for messages. Raises ImageUnreadable and ImageTooLarge.
    """
    with warnings.catch_warnings():
        # Pillow only warns between one and two times its own limit; ours below is stricter and explicit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                width, height = opened.size
                if width * height > MAX_MEGAPIXELS * 1_000_000:
                    raise ImageTooLarge(index, width, height, MAX_MEGAPIXELS)
                opened.seek(0)
                opened.load()
                return _to_rgb(ImageOps.exif_transpose(opened))
        except Image.DecompressionBombError as error:
            raise ImageTooLarge(index, *_bomb_size(data), MAX_MEGAPIXELS) from error
        except UnidentifiedImageError as error:
            raise ImageUnreadable(index, f"{len(data)} bytes that are none of {', '.join(FORMATS)}") from error
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ImageUnreadable(index, f"the file is damaged or truncated ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        # 16 bits for each pixel: convert("L") would clip instead of scaling.
        scaled = image.convert("I").point(lambda value: value * (1 / 257))
        return scaled.convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _bomb_size(data: bytes) -> tuple[int, int]:
    """Width and height from a header that Pillow refuses to open for its size."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return 0, 0
