"""Stage `vision`: ViT and Q-Former learn to tell the attributes of a picture, one query token for each.

The counterpart of BLIP-2's first stage. Without it the language model learns captions that ignore the picture long
before the ViT says anything about it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from .blip2_models import WIDTH, build_captioner, pixels
from .blip2_optim import Optimisers, cosine, load_state, save_state
from .blip2_pictures import ATTRIBUTES, Pool, load_pool
from .blip2_tokenizers import build_opt

WEIGHTS = {"kind": 1.5, "accent": 0.7}  # of the attributes' losses; 1 for the others
HALFWAY = 2  # layers


@dataclass(frozen=True)
class VisionSettings:
    steps: int = 800
    batch: int = 48
    muon_rate: float = 0.02
    adam_rate: float = 1e-3
    seed: int = 11
    device: str = "cpu"


class Heads(torch.nn.Module):
    """Classifiers for training only: one per attribute on the output of the query token with its number, and two on
    every patch, which learns whether the object covers it (half way up the ViT, so that the layers above can tell
    shapes by it) and what kind the object is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.all = torch.nn.ModuleList(torch.nn.Linear(WIDTH, len(values)) for values in ATTRIBUTES.values())
        self.cover = torch.nn.Sequential(torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, 1))
        self.patch_kind = torch.nn.Linear(WIDTH, len(ATTRIBUTES["kind"]))

    def query_loss(self, queries: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
        """Cross-entropy summed over attributes, and the share of right answers of each."""
        total, right = queries.new_zeros(()), []
        for i, (name, head) in enumerate(zip(ATTRIBUTES, self.all, strict=True)):
            logits = head(queries[:, i])
            total = total + WEIGHTS.get(name, 1.0) * functional.cross_entropy(
                logits, numbers[:, i], label_smoothing=0.05
            )
            right.append((logits.argmax(1) == numbers[:, i]).float().mean().item())
        return total, right

    def patch_loss(self, seen: "Seen", covers: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        """`covers` (n, patches) in 0 .. 1, `kinds` (n,)."""
        patches = seen.image[:, 1:]
        covered = functional.binary_cross_entropy_with_logits(self.cover(seen.halfway[:, 1:])[..., 0], covers)
        known = covers > 0.25
        kind = functional.cross_entropy(self.patch_kind(patches[known]), kinds[:, None].expand_as(known)[known])
        return 3 * covered + 0.5 * kind


@dataclass(frozen=True)
class Batch:
    pixels: torch.Tensor
    numbers: torch.Tensor
    covers: torch.Tensor


def random_batch(pool: Pool, rng: np.random.Generator, count: int, device: str) -> Batch:
    chosen = rng.integers(len(pool.labels), size=count)
    return Batch(
        pixels(pool.pictures[chosen]).to(device),
        torch.from_numpy(pool.labels[chosen]).to(device),
        torch.from_numpy(pool.covers[chosen]).to(device).float() / 255,
    )


@dataclass(frozen=True)
class Seen:
    """What the ViT says half way and at its end (n, 1 + patches, width), and the Q-Former (n, queries, width)."""

    halfway: torch.Tensor
    image: torch.Tensor
    queries: torch.Tensor


def see(model: torch.nn.Module, pixel_values: torch.Tensor) -> Seen:
    output = model.vision_model(pixel_values=pixel_values, output_hidden_states=True)
    image = output.last_hidden_state
    queries = model.query_tokens.expand(len(image), -1, -1)
    said = model.qformer(query_embeds=queries, encoder_hidden_states=image).last_hidden_state
    return Seen(output.hidden_states[HALFWAY], image, said)


def vision_loss(heads: Heads, seen: Seen, batch: Batch) -> tuple[torch.Tensor, list[float]]:
    """The loss of all heads, and the share of right answers of each attribute."""
    loss, right = heads.query_loss(seen.queries, batch.numbers)
    return loss + heads.patch_loss(seen, batch.covers, batch.numbers[:, 0]), right


def trained_parts(model: torch.nn.Module, heads: Heads) -> torch.nn.ModuleDict:
    queries = torch.nn.ParameterList([model.query_tokens])
    parts = {"vision_model": model.vision_model, "qformer": model.qformer, "queries": queries, "heads": heads}
    return torch.nn.ModuleDict(parts)


def train(folder: Path, settings: VisionSettings) -> None:
    """Writes `blip2-vision.pt` every 100 steps and at the end."""
    model = build_captioner(build_opt(folder / "opt-tokenizer")).to(settings.device)
    heads, pool = Heads().to(settings.device), load_pool(folder)
    parts = trained_parts(model, heads)
    optimisers = Optimisers(parts.named_parameters(), settings.muon_rate, settings.adam_rate)
    file = folder / "blip2-vision.pt"
    first = load_state(file, optimisers, parts=parts)
    began, history = time.monotonic(), []
    for step in range(first, settings.steps):
        batch = random_batch(pool, np.random.default_rng([settings.seed, step]), settings.batch, settings.device)
        loss, right = vision_loss(heads, see(model, batch.pixels), batch)
        optimisers.step(loss, cosine(step, settings.steps))
        history.append([loss.item(), *right])
        if step % 20 == 19:
            means = np.mean(history[-20:], axis=0)
            shares = " ".join(f"{name} {share:.2f}" for name, share in zip(ATTRIBUTES, means[1:], strict=True))
            print(f"vision {step + 1} loss {means[0]:.3f} {shares} {time.monotonic() - began:.0f}s", flush=True)
        if step % 100 == 99 or step == settings.steps - 1:
            save_state(file, step + 1, optimisers, parts=parts)
