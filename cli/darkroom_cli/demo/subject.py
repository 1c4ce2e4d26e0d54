"""The demo's subject: its photos, and how well a picture shows it. Both come from the drawings that the tiny models were trained on."""

import importlib
import io
from dataclasses import dataclass
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
    """One of the drawn subjects, by name. Raises UsageProblem where the drawings are not installed."""

    def __init__(self, name: str = "pip") -> None:
        try:
            self._drawing: Any = importlib.import_module("drawing.subject")
        except ModuleNotFoundError as error:
            raise UsageProblem(f"the demo needs its drawings: pip install 'darkroom-cli[demo]' ({error})") from error
        self.name = name
        self._subject = self._drawing.SUBJECTS[name]

    def photos(self) -> list[Photo]:
        """The five photos as PNG files."""
        pictures = self._drawing.photos(self._subject)
        return [Photo(photo.name, _png(pictures[photo.name]), photo.background) for photo in self._subject.photos]

    def fidelity(self, data: bytes) -> float:
        """How well a picture shows the subject, 0 to 1, by colours and structure (computer vision, no network)."""
        with Image.open(io.BytesIO(data)) as opened:
            return float(self._drawing.subject_fidelity(opened.convert("RGB"), self._subject))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
