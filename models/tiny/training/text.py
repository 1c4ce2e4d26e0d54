"""Stage 2: the CLIP text encoder, trained alone to say from a caption what the picture shows, then frozen."""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from drawing import scenes, toys
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import tokenizer
from .ranks import cosine

LABELS: dict[str, tuple[str, ...]] = {
    "kind": ("", "toy", *scenes.SHAPES, *toys.PAINTERS),
    "colour": ("", *scenes.COLOURS),
    "accent": ("", *scenes.COLOURS),
    "size": ("", *scenes.SIZES),
    "place": ("", *scenes.PLACES),
    "background": ("", *scenes.BACKGROUNDS),
}


@dataclass(frozen=True)
class TextSettings:
    steps: int = 300
    batch: int = 48
    rate: float = 4e-4
    stray_word_share: float = 0.25  # captions with a word to be ignored, as prompts have
    seed: int = 2


def build(tokens: CLIPTokenizer) -> CLIPTextModel:
    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=768,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=12,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=tokens.bos_token_id,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
            projection_dim=768,
        )
    )


def encode_ids(tokens: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    return tokens(
        texts, padding="max_length", max_length=tokenizer.TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


def labels_of(caption: str) -> dict[str, int]:
    """What the caption itself says, by its words: index into `LABELS`, 0 where it is silent."""
    found = dict.fromkeys(LABELS, 0)
    for background, phrases in scenes.BACKGROUND_PHRASES.items():
        for phrase in phrases:
            if phrase in caption:
                found["background"] = LABELS["background"].index(background)
                caption = caption.replace(phrase, "")
    for place, phrase in scenes.PLACE_PHRASES.items():
        if phrase in caption:
            found["place"] = LABELS["place"].index(place)
            caption = caption.replace(phrase, "")
    caption_words = caption.replace(",", " ").split()
    colours = [w for w in caption_words if w in scenes.COLOURS]
    for name, word in zip(("colour", "accent"), colours, strict=False):
        found[name] = LABELS[name].index(word)
    for name in ("kind", "size"):
        for word in caption_words:
            if word in LABELS[name]:
                found[name] = LABELS[name].index(word)
    return found


def random_caption(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(scenes.captions(scenes.random_scene(rng)))
    return rng.choice(toys.toy_captions(toys.random_toy(rng)))


def with_stray_word(caption: str, rng: random.Random) -> str:
    stray = [w for w in tokenizer.OTHER_WORDS.replace("-", " ").split() if w != "sks"]
    caption_words = caption.split()
    caption_words.insert(rng.randrange(len(caption_words) + 1), rng.choice(stray))
    return " ".join(caption_words)


class Probe(nn.Module):
    """Linear heads that read the labels from the state of the end token; thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(768, len(values)) for name, values in LABELS.items()})

    def loss(self, state: torch.Tensor, labels: list[dict[str, int]]) -> torch.Tensor:
        losses = [
            functional.cross_entropy(head(state), torch.tensor([found[name] for found in labels]))
            for name, head in self.heads.items()
        ]
        return torch.stack(losses).mean()


def train(folder: Path, settings: TextSettings) -> None:
    """Writes the tokenizer folder and `text.pt` (state dict)."""
    tokens = tokenizer.build(folder / "tokenizer")
    encoder, probe = build(tokens), Probe()
    optimizer = torch.optim.AdamW(
        [*encoder.parameters(), *probe.parameters()], settings.rate, (0.9, 0.99), weight_decay=0.01
    )
    began = time.monotonic()
    for step in range(settings.steps):
        optimizer.param_groups[0]["lr"] = settings.rate * cosine(step, settings.steps, warmup=20)
        rng = random.Random(f"{settings.seed}/{step}")
        captions = [random_caption(rng) for _ in range(settings.batch)]
        labels = [labels_of(caption) for caption in captions]
        captions = [with_stray_word(c, rng) if rng.random() < settings.stray_word_share else c for c in captions]
        loss = probe.loss(encoder(encode_ids(tokens, captions)).pooler_output, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0 or step == settings.steps - 1:
            print(f"text {step} loss {loss.item():.4f} {time.monotonic() - began:.0f}s", flush=True)
    torch.save(encoder.state_dict(), folder / "text.pt")
