"""The photos in examples/ are the ones that the demo draws."""

from pathlib import Path

import numpy as np
import pytest
from drawing.subject import photos
from PIL import Image

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.mark.parametrize("name", sorted(photos()))
def test_photo_is_the_drawn_one(name: str) -> None:
    with Image.open(PHOTOS / name) as stored:
        assert np.array_equal(np.asarray(stored.convert("RGB")), np.asarray(photos()[name]))
