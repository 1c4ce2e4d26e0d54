"""The demo's subject: its photos, and how well a picture shows it. Both come from the drawings beside the tiny models."""

import importlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom_cli.output import UsageProblem

# What the model is taught to call it; "sks" is a word without meaning to it.
INSTANCE_PROMPT = "a photo of sks toy"
# Three backgrounds that no photo shows, by the words that the model knows.
NEW_BACKGROUNDS = ("on the sea", "at night", "on a brick wall")


@dataclass(frozen=True)
class Photo:
    """One photo of the subject. background: what a good caption has to name."""

    filename: str
    data: bytes
    background: str


class Subject:
    """The drawings of a models folder. Raises UsageProblem for a folder without them."""

    def __init__(self, models: Path) -> None:
        if not (models / "drawing" / "subject.py").exists():
            raise UsageProblem(
                f"the demo needs the drawings beside the tiny models; {models} has none. Unset DARKROOM_MODELS"
            )
        sys.path.insert(0, str(models))
        self._drawing: Any = importlib.import_module("drawing.subject")

    def photos(self) -> list[Photo]:
        """The five photos as PNG files."""
        pictures = self._drawing.photos()
        return [Photo(photo.name, _png(pictures[photo.name]), photo.background) for photo in self._drawing.PHOTOS]

    def fidelity(self, data: bytes) -> float:
        """How well a picture shows the subject, 0 to 1, by colours and structure (computer vision, no network)."""
        with Image.open(io.BytesIO(data)) as opened:
            return float(self._drawing.subject_fidelity(opened.convert("RGB")))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
