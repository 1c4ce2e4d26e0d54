"""Settings of text generation: defaults, contradictions, and which requests may share a batch.

Domain: `server` fills these from the proto, `batching` groups by `batch_key`, `blip2` obeys them.
"""

from dataclasses import dataclass
from typing import Any

from captioner.errors import PromptUnusable, SettingsContradict

CAPTION_BEAMS = 5
ANSWER_BEAMS = 1
IMAGE_TOKEN = "<image>"


def check_words(text: str) -> None:
    """Raises PromptUnusable for a text whose tokens would be taken for a picture's."""
    if IMAGE_TOKEN in text:
        raise PromptUnusable(f"the text contains {IMAGE_TOKEN!r}, which stands for the picture; leave it out")


@dataclass(frozen=True)
class Settings:
    """How one text is generated; names, units and ranges as in the proto's GenerationSettings."""

    num_beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_new_tokens: int = 0
    max_new_tokens: int = 30
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    length_penalty: float = 1.0
    seed: int = 0

    @property
    def samples(self) -> bool:
        """True if tokens are drawn instead of chosen."""
        return self.temperature > 0

    def check(self) -> None:
        """Raises SettingsContradict when two settings exclude each other; nothing is dropped silently."""
        if self.samples and self.num_beams > 1:
            raise SettingsContradict(
                f"temperature {self.temperature:g} samples and num_beams {self.num_beams} searches; set num_beams 1 or temperature 0"
            )
        if not self.samples and (self.top_p < 1 or self.top_k > 0):
            raise SettingsContradict(
                "top_p and top_k choose what is sampled, but temperature is 0; set temperature above 0"
            )
        if self.min_new_tokens > self.max_new_tokens:
            raise SettingsContradict(
                f"min_new_tokens {self.min_new_tokens} is greater than max_new_tokens {self.max_new_tokens}"
            )


@dataclass(frozen=True)
class BatchKey:
    """What all rows of one `generate` call must have in common; sampling settings differ from row to row."""

    num_beams: int
    min_new_tokens: int
    max_new_tokens: int
    repetition_penalty: float
    no_repeat_ngram_size: int
    length_penalty: float


def batch_key(settings: Settings) -> BatchKey:
    """The part of the settings that rows of a batch must share."""
    return BatchKey(
        num_beams=settings.num_beams,
        min_new_tokens=settings.min_new_tokens,
        max_new_tokens=settings.max_new_tokens,
        repetition_penalty=settings.repetition_penalty,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        length_penalty=settings.length_penalty if settings.num_beams > 1 else 1.0,
    )


@dataclass(frozen=True)
class Row:
    """One text to generate. pixels: a tensor (3, size, size), normalised as the checkpoint's processor does."""

    pixels: Any
    prompt: str
    settings: Settings


@dataclass(frozen=True)
class Text:
    """A generated text, without its prompt. truncated: it ended at max_new_tokens, not at its own end."""

    text: str
    truncated: bool
    num_tokens: int
