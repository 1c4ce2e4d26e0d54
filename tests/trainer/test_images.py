"""What is accepted as a picture, and how every mode becomes upright RGB."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from trainer import images
from trainer.errors import ImageAnimated, ImageTooLarge, ImageTooSmall, ImageUnreadable
from trainer.images import Size

from tests.trainer.conftest import encoded

RED = Image.new("RGB", (40, 20), (200, 30, 30))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_formats(kind: str) -> None:
    assert images.check(encoded(RED, kind), "a") == Size(40, 20)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_every_mode_becomes_rgb_of_the_same_colour(mode: str) -> None:
    if mode == "I;16":
        source = Image.fromarray(np.full((20, 40), 200 * 257, np.uint16))
        data, wanted = encoded(source), (200, 200, 200)
    else:
        source = RED.convert(mode)
        wanted = source.convert("RGB").getpixel((20, 10))
        data = encoded(source, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG")
    decoded = images.decode(data, "a")
    assert (decoded.mode, decoded.size) == ("RGB", (40, 20))
    assert np.abs(np.subtract(decoded.getpixel((20, 10)), wanted)).max() <= 6


def test_transparency_becomes_white() -> None:
    assert images.decode(encoded(Image.new("RGBA", (20, 20), (9, 9, 9, 0))), "a").getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    half = Image.new("RGB", (40, 20))
    half.paste("white", (0, 0, 20, 20))
    data = encoded(half, "JPEG", exif=exif)
    assert images.check(data, "a") == Size(20, 40)
    upright = images.decode(data, "a")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5))[0] > 200
    assert upright.getpixel((10, 35))[0] < 50


@pytest.mark.parametrize("data", [b"", b"hello", b"GIF89a" + bytes(50), encoded(RED, "BMP")], ids=range(4))
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ImageUnreadable, match=r"photo\.png: is none of PNG, JPEG, WEBP"):
        images.check(data, "photo.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(ImageUnreadable, match="damaged or truncated"):
        images.check(data[: int(len(data) * share)], "photo")


@pytest.mark.parametrize("size", [(1, 1), (15, 200), (200, 15)])
def test_pictures_that_are_too_small(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooSmall, match=f"{size[0]}x{size[1]} pixels.*16"):
        images.check(encoded(Image.new("RGB", size)), "a")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageAnimated, match="3 frames"):
        images.check(data, "a")


def test_a_phone_photo_with_a_second_picture_is_a_still() -> None:
    data = encoded(RED, "MPO", save_all=True, append_images=[Image.new("RGB", (10, 10))])
    assert images.check(data, "a.jpg") == Size(40, 20)


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (8001, 8000)])
def test_decompression_bombs_are_refused_by_their_header(width: int, height: int) -> None:
    with pytest.raises(ImageTooLarge, match=f"{width}x{height} pixels; at most 64 megapixels"):
        images.check(png_header(width, height), "a")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels worth speaking of."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
