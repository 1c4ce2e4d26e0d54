"""Every colour mode and orientation becomes an upright RGB picture; everything else is refused in words."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from captioner.errors import ImageTooLarge, ImageUnreadable
from captioner.images import decode
from PIL import Image

from tests.captioner.conftest import jpeg_header, png, png_header, scene


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "RGBA", "LA"])
def test_colour_modes(mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    decoded = decode(png(scene("red").convert(mode), kind))
    assert (decoded.mode, decoded.size) == ("RGB", (64, 64))


def test_sixteen_bit_is_scaled_not_clipped() -> None:
    values = np.full((8, 8), 32768, dtype=np.uint16)
    decoded = decode(png(Image.fromarray(values)))
    assert decoded.getpixel((0, 0)) == (127, 127, 127)


def test_transparency_is_laid_over_white() -> None:
    assert decode(png(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(png(Image.new("RGB", (20, 10)), "JPEG", exif=exif)).size == (10, 20)


def test_first_frame_of_an_animation() -> None:
    frames = [scene("red"), scene("blue")]
    decoded = decode(png(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decoded.getpixel((32, 32))[0] > 200


def test_one_pixel() -> None:
    assert decode(png(Image.new("RGB", (1, 1), "red"))).size == (1, 1)


@pytest.mark.parametrize("data", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0", b"<svg/>"])
def test_not_an_image(data: bytes) -> None:
    with pytest.raises(ImageUnreadable, match="image 3 cannot be read"):
        decode(data, 3)


def test_truncated() -> None:
    whole = png(Image.effect_noise((64, 64), 50), "JPEG")
    with pytest.raises(ImageUnreadable, match="damaged or truncated"):
        decode(whole[: len(whole) // 2])


@pytest.mark.parametrize("header", [png_header, jpeg_header])
@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (9_001, 9_000)])
def test_too_many_pixels_are_refused_before_decoding(
    header: Callable[[int, int], bytes], width: int, height: int
) -> None:
    with pytest.raises(ImageTooLarge, match=f"image 0 has {width}x{height} pixels") as caught:
        decode(header(width, height))
    assert (caught.value.width_px, caught.value.height_px) == (width, height)


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [(np.full((4, 4), 0.5, np.float32), "floating-point"), (np.full((4, 4), 70_000, np.int32), "from 70000 to 70000")],
)
def test_pixels_of_no_known_range_are_refused(pixels: np.typing.NDArray[Any], problem: str) -> None:
    with pytest.raises(ImageUnreadable, match=problem):
        decode(png(Image.fromarray(pixels), "TIFF"))
