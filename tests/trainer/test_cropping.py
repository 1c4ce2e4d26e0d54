"""Crops of real pictures: exact size, no black edges, every mode, faces whole."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trainer import faces
from trainer.crop import place
from trainer.cropping import CropMethod, cropped, cut

from tests.trainer.conftest import encoded

# NASA's portrait of Eileen Collins (public domain), 220 pixels square; the face is at (59, 48), 91 x 108 pixels.
FACE = Image.open(Path(__file__).with_name("astronaut.jpg")).convert("RGB")


def picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("size", [64, 96])
def test_exactly_the_size_and_no_black_edge_for_any_height(size: int) -> None:
    """fast-stable-diffusion lost a row for every eighth height."""
    for height in range(1, 700):
        white = Image.new("RGB", (97, height), "white")
        pixels = np.asarray(cut(white, place(97, height, [], (48, height / 3)), size))
        assert pixels.shape == (size, size, 3)
        assert pixels.min() == 255


@pytest.mark.parametrize("size", [64, 512])
def test_small_pictures_are_enlarged(size: int) -> None:
    result = cropped(encoded(Image.new("RGB", (20, 33), "white")), "a.png", size, "a.png")
    pixels = np.asarray(picture(result.data))
    assert pixels.shape == (size, size, 3)
    assert pixels.min() == 255


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode(mode: str) -> None:
    if mode == "I;16":
        source = Image.fromarray(np.full((80, 120), 65535, np.uint16))
    else:
        source = Image.new("RGB", (120, 80), "white").convert(mode)
    data = encoded(source, "JPEG" if mode == "CMYK" else "PNG")
    result = picture(cropped(data, "a", 64, "a.png").data)
    assert (result.mode, result.size) == ("RGB", (64, 64))
    assert np.asarray(result).min() >= 254


@pytest.mark.parametrize("left", [0, 330, 660])
def test_a_face_is_found_and_kept_whole(left: int) -> None:
    wide = Image.new("RGB", (880, 220), (90, 110, 90))
    wide.paste(FACE, (left, 0))
    result = cropped(encoded(wide), "a.png", 220, "a.png")
    assert result.method == CropMethod.FACE
    assert result.square.left <= left + 59
    assert result.square.left + result.square.edge >= left + 59 + 91
    assert len(faces.detect(np.asarray(picture(result.data)))) == 1


@pytest.mark.parametrize("left", [5, 280, 500])
@pytest.mark.parametrize("seed", range(5))
def test_without_a_face_the_subject_is_in_the_picture(left: int, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(128, 10, (100, 600, 1)).clip(0, 255).astype(np.uint8)
    wide = Image.fromarray(np.repeat(noise, 3, axis=2))
    wide.paste("red", (left, 30, left + 40, 70))
    result = cropped(encoded(wide), "a.png", 100, "a.png")
    assert result.method == CropMethod.SALIENCY
    assert result.square.left <= left
    assert result.square.left + result.square.edge >= left + 40


def test_a_picture_of_that_size_is_left_as_it_is() -> None:
    data = encoded(Image.new("RGB", (64, 64), "red"), "JPEG")
    result = cropped(data, "a.jpg", 64, "a.jpg")
    assert (result.method, result.data) == (CropMethod.UNCHANGED, data)


@pytest.mark.parametrize(
    ("file", "kind"), [("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.png", "PNG"), ("a.webp", "WEBP")]
)
def test_the_format_follows_the_file_name(file: str, kind: str) -> None:
    assert picture(cropped(encoded(Image.new("RGB", (70, 80))), file, 64, file).data).format == kind


def test_orientation_is_applied_before_cutting() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8  # turn left to see it upright
    tall = Image.new("RGB", (220, 440), (90, 110, 90))
    tall.paste(FACE, (0, 0))
    data = encoded(tall.rotate(-90, expand=True), "JPEG", exif=exif, quality=95)
    result = cropped(data, "a.jpg", 220, "a.png")
    assert result.method == CropMethod.FACE
    assert result.square.top < 20
