"""Stage `language`: the OPT model learns captions and answers from symbols, one learned vector per attribute value.

It is what a pretrained language model is to a real BLIP-2: when pictures come in (`blip2_join`), it can already speak.
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import OPTForCausalLM, PreTrainedTokenizerBase

from .blip2_models import QUERIES, WIDTH, build_captioner
from .blip2_optim import Optimisers, cosine, load_state, save_state
from .blip2_pictures import ATTRIBUTES, Fact, fact_from
from .blip2_texts import sentences
from .blip2_tokenizers import build_opt

NOISE = 0.04  # on the symbols, so that the model does not rely on exact vectors


@dataclass(frozen=True)
class LanguageSettings:
    steps: int = 900
    pictures: int = 32
    texts_per_picture: int = 2
    muon_rate: float = 0.02
    adam_rate: float = 2e-3
    seed: int = 12
    device: str = "cpu"


class Symbols(torch.nn.Module):
    """A vector for each value of each attribute, in the places where the Q-Former's outputs will stand."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = torch.nn.ModuleList(torch.nn.Embedding(len(values), WIDTH) for values in ATTRIBUTES.values())
        for table in self.tables:
            torch.nn.init.normal_(table.weight, std=0.1)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Class numbers (n, attributes) to vectors (n, queries, width); the spare queries are zero."""
        told = torch.stack([table(numbers[:, i]) for i, table in enumerate(self.tables)], dim=1)
        return functional.pad(told, (0, 0, 0, QUERIES - told.shape[1]))


@dataclass(frozen=True)
class Texts:
    """Token ids, mask of real tokens and weight of each token in the loss, all (n, length), padded on the right."""

    ids: torch.Tensor
    mask: torch.Tensor
    weights: torch.Tensor


def encode(tokens: PreTrainedTokenizerBase, pairs: list[tuple[str, str]]) -> Texts:
    """Prompt and continuation, closed by a newline; only the continuation counts, answers more than captions."""
    newline = tokens.convert_tokens_to_ids("Ċ")
    prompts = tokens([prompt for prompt, _ in pairs]).input_ids
    told = tokens([text for _, text in pairs], add_special_tokens=False).input_ids
    rows = [p + t + [newline] for p, t in zip(prompts, told, strict=True)]
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), tokens.pad_token_id)
    mask, weights = torch.zeros_like(ids), torch.zeros(ids.shape)
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
        weights[i, len(prompt) : len(row)] = (len(row) - len(prompt)) ** -0.5
    return Texts(ids, mask, weights)


def text_loss(language: OPTForCausalLM, prefix: torch.Tensor, texts: Texts) -> tuple[torch.Tensor, float]:
    """Weighted cross-entropy after the prefix (n, queries, width), and the share of right tokens that count."""
    device = prefix.device
    embedded = language.get_input_embeddings()(texts.ids.to(device))
    mask = torch.cat([torch.ones(prefix.shape[:2], dtype=torch.long), texts.mask], dim=1).to(device)
    logits = language(inputs_embeds=torch.cat([prefix, embedded], dim=1), attention_mask=mask).logits
    logits = logits[:, prefix.shape[1] - 1 : -1]
    counted = texts.weights.to(device) > 0
    targets, weights = texts.ids.to(device)[counted], texts.weights.to(device)[counted]
    chosen = logits[counted]
    right = (chosen.argmax(1) == targets).float().mean().item()
    return (functional.cross_entropy(chosen, targets, reduction="none") * weights).sum() / weights.sum(), right


def random_texts(tokens: PreTrainedTokenizerBase, facts: list[Fact], seed: str, count: int) -> Texts:
    """`count` texts of each fact, fact after fact."""
    rng = random.Random(seed)
    return encode(tokens, [pair for fact in facts for pair in sentences(rng, fact, count)])


def train(folder: Path, settings: LanguageSettings) -> None:
    """Writes `blip2-language.pt` every 100 steps and at the end."""
    tokens = build_opt(folder / "opt-tokenizer")
    language, symbols = build_captioner(tokens).language_model.to(settings.device), Symbols().to(settings.device)
    named = [*language.named_parameters(), *((f"embed.{n}", p) for n, p in symbols.named_parameters())]
    optimisers = Optimisers(named, settings.muon_rate, settings.adam_rate)
    file = folder / "blip2-language.pt"
    first = load_state(file, optimisers, language=language, symbols=symbols)
    labels = np.load(folder / "pool-labels.npy")
    began, history = time.monotonic(), []
    for step in range(first, settings.steps):
        rng = np.random.default_rng([settings.seed, step])
        torch.manual_seed(settings.seed * 1_000_003 + step)
        numbers = labels[rng.integers(len(labels), size=settings.pictures)]
        texts = random_texts(
            tokens, [fact_from(row) for row in numbers.tolist()], f"{settings.seed}/{step}", settings.texts_per_picture
        )
        told = symbols(torch.from_numpy(numbers).to(settings.device))
        prefix = (told + NOISE * torch.randn_like(told)).repeat_interleave(settings.texts_per_picture, dim=0)
        loss, right = text_loss(language, prefix, texts)
        optimisers.step(loss, cosine(step, settings.steps))
        history.append((loss.item(), right))
        if step % 20 == 19:
            loss_mean, right_mean = np.mean(history[-20:], axis=0)
            seconds = time.monotonic() - began
            print(f"language {step + 1} loss {loss_mean:.4f} right {right_mean:.3f} {seconds:.0f}s", flush=True)
        if step % 100 == 99 or step == settings.steps - 1:
            save_state(file, step + 1, optimisers, language=language, symbols=symbols)
