"""Pictures of every kind on their way in, and what is refused before it is decoded."""

import base64
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from webui_engine.errors import ImageInvalid
from webui_engine.images import check_short_side, encode_png, open_image, read_infotext, to_rgb, with_short_side

from .conftest import as_base64, drawing

LIMIT = 1000 * 1000


def rgb(text: str) -> np.ndarray[Any, Any]:
    return np.asarray(to_rgb(open_image("image", text, LIMIT)))


@pytest.mark.parametrize(
    ("format", "mode", "arguments"),
    [
        ("PNG", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("JPEG", "RGB", {"quality": 95}),
        ("JPEG", "CMYK", {"quality": 95}),
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "1", {}),
        ("GIF", "P", {}),
        ("TIFF", "RGB", {}),
    ],
)
def test_every_format_and_mode_shows_the_same_picture(format: str, mode: str, arguments: dict[str, Any]) -> None:
    found = rgb(as_base64(drawing().convert(mode), format, **arguments))
    assert found.shape == (64, 64, 3)
    assert (found[32, 32] > 235).all()
    assert found[4, 4].mean() < 100


def test_sixteen_bit_grey_keeps_its_brightness() -> None:
    levels = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    found = rgb(as_base64(Image.fromarray(levels)))
    assert found[0, 0, 0] == 0
    assert found[63, 63, 0] >= 254
    assert abs(int(found[32, 0, 0]) - 128) <= 1


def test_transparency_is_white() -> None:
    assert (rgb(as_base64(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))) == 255).all()


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    assert rgb(as_base64(image, "JPEG", exif=exif.tobytes())).shape == (20, 10, 3)


def test_a_data_uri_is_as_good() -> None:
    assert rgb(f"data:image/png;base64,{as_base64(drawing())}").shape == (64, 64, 3)


def huge_png(width: int, height: int) -> str:
    """A PNG that says it is huge and holds a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


def animation() -> str:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return as_base64(frames[0], "GIF", save_all=True, append_images=frames[1:])


def truncated() -> str:
    return base64.b64encode(base64.b64decode(as_base64(drawing()))[:150]).decode()


def second_page_without_size() -> str:
    """A TIFF whose first page is right and whose second has no tags at all."""
    data = bytearray(base64.b64decode(as_base64(drawing(), "TIFF")))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, len(data))
    return base64.b64encode(bytes(data) + struct.pack("<HI", 0, 0)).decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid encoded image"),
        ("&&&", "not base64"),
        (base64.b64encode(b"hello there").decode(), "not a picture"),
        (truncated(), "damaged"),
        (second_page_without_size(), "damaged: Missing dimensions"),
        (animation(), "animation of 2 frames"),
        (huge_png(1200, 1000), "1200x1000 = 1200000 pixels, expected at most 1000000"),
        (huge_png(30000, 30000), "pixels"),
        ("https://example.org/cat.png", "Requests not allowed"),
        (12, "found int"),
    ],
)
def test_what_is_no_picture_says_why(text: object, message: str) -> None:
    with pytest.raises(ImageInvalid, match=message):
        open_image("image", text, LIMIT)


def test_a_strip_is_not_blown_up() -> None:
    strip = Image.new("L", (1, 10_000))
    check_short_side("image", strip, 8, LIMIT)
    assert with_short_side(strip, 8).size == (8, 80_000)
    with pytest.raises(ImageInvalid, match="1x10000, which is 64x640000 with 64 px on the short side"):
        check_short_side("image", strip, 64, LIMIT)


@pytest.mark.parametrize("text", ["plain\nSteps: 1", "Ünïcode 犬"])
def test_the_infotext_is_in_the_png(text: str) -> None:
    image = open_image("image", encode_png(drawing(), text), LIMIT)
    assert read_infotext(image)[0] == text


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_the_infotext_is_read_from_exif(format: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a 犬, Steps: 1".encode("utf-16-be")
    image = open_image("image", as_base64(drawing(), format, exif=exif.tobytes()), LIMIT)
    assert read_infotext(image)[0] == "a 犬, Steps: 1"
