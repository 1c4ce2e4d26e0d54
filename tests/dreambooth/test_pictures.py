import io
from collections.abc import Callable

import numpy as np
import pytest
from dreambooth.pictures import Undecodable, cover, decode
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(mode: str, size: tuple[int, int] = (64, 48)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    picture = decode(encoded(noise(mode), "JPEG" if mode == "CMYK" else "PNG"))
    assert (picture.mode, picture.size) == ("RGB", (64, 48))


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    levels = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    picture = np.asarray(decode(encoded(Image.fromarray(levels))))
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[-1, -1].tolist() == [255, 255, 255]
    assert abs(int(picture[32, 0, 0]) - 128) <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(mode: str) -> None:
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0)).convert(mode)
    assert np.asarray(decode(encoded(clear))).min() == 255


def test_camera_orientation_is_applied() -> None:
    image = Image.new("RGB", (64, 32), "red")
    exif = image.getexif()
    exif[0x0112] = 6
    assert decode(encoded(image, "JPEG", exif=exif)).size == (32, 64)


def test_a_phone_photo_with_a_second_picture_is_the_photo() -> None:
    content = encoded(noise("RGB"), "MPO", save_all=True, append_images=[Image.new("RGB", (20, 20))])
    assert decode(content).size == (64, 48)


def test_file_of_another_kind_is_refused() -> None:
    with pytest.raises(Undecodable, match="PNG, JPEG, WEBP"):
        decode(b"\0\0\0\1Bud1 not an image")


def test_kind_that_is_an_image_but_not_offered_is_refused() -> None:
    with pytest.raises(Undecodable, match="PNG, JPEG, WEBP"):
        decode(encoded(noise("RGB"), "BMP"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_file_cut_off_is_refused(kind: str) -> None:
    whole = encoded(noise("RGB", (200, 200)), kind)
    with pytest.raises(Undecodable):
        decode(whole[: len(whole) // 2])


def test_single_pixel_is_refused() -> None:
    with pytest.raises(Undecodable, match="1 x 1 pixels: expected at least 16"):
        decode(encoded(Image.new("RGB", (1, 1))))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animation_is_refused(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    with pytest.raises(Undecodable, match="animation of 2 frames"):
        decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("size", [(30_000, 30_000), (10_000, 10_000)])
def test_picture_of_too_many_pixels_is_refused_by_its_header(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, huge_png: Callable[[int, int], bytes]
) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(Undecodable, match="pixels: expected at most"):
        decode(huge_png(*size))


@pytest.fixture
def huge_png() -> Callable[[int, int], bytes]:
    """A PNG whose header promises this size; the pixels are missing."""

    def make(width: int, height: int) -> bytes:
        import struct
        import zlib

        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 10)), (b"IEND", b"")]
        body = b"".join(
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
            for name, content in chunks
        )
        return b"\x89PNG\r\n\x1a\n" + body

    return make


@pytest.mark.parametrize(
    ("size", "shape"), [((100, 50), (64, 128, 3)), ((50, 101), (129, 64, 3)), ((64, 64), (64, 64, 3))]
)
def test_resize_makes_the_shorter_side_exact(size: tuple[int, int], shape: tuple[int, int, int]) -> None:
    assert cover(Image.new("RGB", size), (64, 64)).shape == shape


def test_picture_of_the_right_size_keeps_its_pixels() -> None:
    image = noise("RGB", (64, 64))
    assert np.array_equal(cover(image, (64, 64)), np.asarray(image))
